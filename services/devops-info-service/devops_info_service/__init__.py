"""The DevOps Info Service: reports over HTTP the machine it runs on, its process and the request it answers."""

NAME = "devops-info-service"
TITLE = "DevOps Info Service (Python)"
VERSION = "1.0.0"
DESCRIPTION = "Reports the machine, the process and the request it answers"
FRAMEWORK = "Starlette"
