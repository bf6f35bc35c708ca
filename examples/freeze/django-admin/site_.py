"""Django in one file: the admin with its static files, and a database in SQLite."""

from __future__ import annotations

import os
import secrets
import tempfile

import django
from django.conf import settings
from django.contrib import admin
from django.contrib.staticfiles import views
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path, re_path

settings.configure(
    DEBUG=False,
    SECRET_KEY=secrets.token_hex(16),
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
        "django.contrib.staticfiles",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.path.join(tempfile.mkdtemp(), "database"),
        }
    },
    STATIC_URL="/static/",
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()


def users(_request: HttpRequest) -> JsonResponse:
    """Count the users."""
    from django.contrib.auth.models import User

    return JsonResponse({"users": User.objects.count()})


def static(request: HttpRequest, name: str) -> object:
    """Serve a static file of an application."""
    return views.serve(request, name, insecure=True)


urlpatterns = [
    path("admin/", admin.site.urls),
    path("users", users),
    re_path(r"^static/(?P<name>.*)$", static),
]
call_command("migrate", verbosity=0)
app = get_wsgi_application()
