// Command devops-info-service reports over HTTP what it runs on: the machine,
// the process and the request itself. It uses the standard library only.
//
// It is shipped in an image of a few megabytes, so packages that cost much for
// little are left out: JSON is written by appendJSON (encoding/json would add
// 64 kB to the compressed binary) and the page by plain concatenation
// (html/template would add 0.7 MB).
package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"html"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"
)

const (
	serviceName        = "devops-info-service"
	serviceVersion     = "1.0.0"
	serviceDescription = "Reports the machine, the process and the request it answers"
	serviceFramework   = "Go net/http"

	defaultHost = "0.0.0.0"
	defaultPort = "8000"

	// drainLimit stays under the ten seconds that container engines wait
	// between SIGTERM and SIGKILL.
	drainLimit       = 8 * time.Second
	maxShutdownDelay = 300 // seconds

	allowedMethods = "GET, HEAD"
)

// Configuration.

type config struct {
	host, port    string
	jsonLogs      bool
	shutdownDelay time.Duration // how long the service still answers once it reports that it is not ready
}

// address returns host:port, with brackets around an IPv6 address.
func (c config) address() string { return net.JoinHostPort(c.host, c.port) }

// readConfig reads the settings from the environment; an empty variable means its default.
func readConfig(getenv func(string) string) (config, error) {
	c := config{host: defaultHost, port: defaultPort}
	if host := getenv("HOST"); host != "" {
		c.host = host
	}
	if port := getenv("PORT"); port != "" {
		n, ok := wholeNumber(port, 65535)
		if !ok || n == 0 {
			return c, fmt.Errorf("PORT must be a whole number from 1 to 65535, not %q", port)
		}
		c.port = strconv.Itoa(n)
	}
	switch format := getenv("LOG_FORMAT"); format {
	case "", "text":
	case "json":
		c.jsonLogs = true
	default:
		return c, fmt.Errorf("LOG_FORMAT must be text or json, not %q", format)
	}
	if delay := getenv("SHUTDOWN_DELAY"); delay != "" {
		n, ok := wholeNumber(delay, maxShutdownDelay)
		if !ok {
			return c, fmt.Errorf("SHUTDOWN_DELAY must be whole seconds from 0 to %d, not %q", maxShutdownDelay, delay)
		}
		c.shutdownDelay = time.Duration(n) * time.Second
	}
	return c, nil
}

// wholeNumber reads decimal digits and nothing else (strconv.Atoi would take a sign).
func wholeNumber(s string, limit int) (int, bool) {
	n, err := strconv.ParseUint(s, 10, 31)
	return int(n), err == nil && int(n) <= limit
}

// JSON.

type member struct {
	key   string
	value any // string, bool, int, int64, float64, object or []object
}

// object is a JSON object whose members keep their order.
type object []member

// text returns the value of a member as it is shown to people, "" for none.
func (o object) text(key string) string {
	for _, m := range o {
		if m.key == key {
			return fmt.Sprint(m.value)
		}
	}
	return ""
}

const compact = -1

// appendJSON appends v to dst, indented by two spaces a level from the given
// level, or on one line without spaces when the level is compact.
func appendJSON(dst []byte, v any, level int) []byte {
	switch v := v.(type) {
	case string:
		return appendJSONString(dst, v)
	case bool:
		return strconv.AppendBool(dst, v)
	case int:
		return strconv.AppendInt(dst, int64(v), 10)
	case int64:
		return strconv.AppendInt(dst, v, 10)
	case float64:
		return strconv.AppendFloat(dst, v, 'f', -1, 64)
	case object:
		return appendJSONItems(dst, "{}", len(v), level, func(dst []byte, i, level int) []byte {
			dst = append(appendJSONString(dst, v[i].key), ':')
			if level != compact {
				dst = append(dst, ' ')
			}
			return appendJSON(dst, v[i].value, level)
		})
	case []object:
		return appendJSONItems(dst, "[]", len(v), level, func(dst []byte, i, level int) []byte {
			return appendJSON(dst, v[i], level)
		})
	}
	panic(fmt.Sprintf("no JSON form for %T", v))
}

func appendJSONItems(dst []byte, brackets string, n, level int, item func([]byte, int, int) []byte) []byte {
	inner := level
	if level != compact {
		inner = level + 1
	}
	dst = append(dst, brackets[0])
	for i := range n {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = item(appendJSONBreak(dst, inner), i, inner)
	}
	if n > 0 {
		dst = appendJSONBreak(dst, level)
	}
	return append(dst, brackets[1])
}

func appendJSONBreak(dst []byte, level int) []byte {
	if level == compact {
		return dst
	}
	dst = append(dst, '\n')
	for range level {
		dst = append(dst, "  "...)
	}
	return dst
}

// appendJSONString appends s quoted; bytes that are not UTF-8 become U+FFFD.
func appendJSONString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for _, r := range s {
		short := strings.IndexRune("\"\\\b\f\n\r\t", r)
		switch {
		case short >= 0:
			dst = append(dst, '\\', `"\bfnrt`[short])
		case r < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return append(dst, '"')
}

// Logging.

// logger writes a record a line: the form of the standard logger, or JSON.
type logger struct {
	text *log.Logger
	json bool
}

func newLogger(out io.Writer, json bool) *logger {
	flags := log.LstdFlags | log.Lshortfile
	if json {
		flags = 0
	}
	return &logger{text: log.New(out, "", flags), json: json}
}

func (l *logger) info(message string, extra ...member) { l.record("info", message, extra) }

func (l *logger) fail(message string, extra ...member) { l.record("error", message, extra) }

// record must be called by info and fail only: it reports the line of their caller.
func (l *logger) record(level, message string, extra []member) {
	if !l.json {
		_ = l.text.Output(3, oneLine(message))
		return
	}
	line := object{{"time", time.Now().UTC().Format("2006-01-02T15:04:05.000Z")}, {"level", level}}
	if _, file, number, ok := runtime.Caller(2); ok {
		line = append(line, member{"source", file[strings.LastIndexByte(file, '/')+1:] + ":" + strconv.Itoa(number)})
	}
	line = append(append(line, member{"message", message}), extra...)
	l.text.Print(string(appendJSON(nil, line, compact)))
}

// Write takes the server's own complaints, so that they have the form of the rest.
func (l *logger) Write(p []byte) (int, error) {
	l.fail(strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

// oneLine escapes what could end a log line, forge another or steer a terminal.
func oneLine(s string) string {
	for _, r := range s {
		if r == utf8.RuneError || !strconv.IsPrint(r) {
			quoted := strconv.Quote(s)
			return quoted[1 : len(quoted)-1]
		}
	}
	return s
}

// Metrics.

const other = "other" // the label of every unknown path and method, so that clients cannot add series

var latencyBounds = [...]float64{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

type series struct{ method, path, status string }

type histogram struct {
	buckets [len(latencyBounds)]uint64
	count   uint64
	sum     float64
}

type metrics struct {
	mutex    sync.Mutex
	requests map[series]uint64
	latency  map[series]*histogram // with an empty status
}

func newMetrics() *metrics {
	return &metrics{requests: map[series]uint64{}, latency: map[series]*histogram{}}
}

func (m *metrics) observe(method, path string, status int, elapsed time.Duration) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.requests[series{method, path, strconv.Itoa(status)}]++
	h := m.latency[series{method, path, ""}]
	if h == nil {
		h = new(histogram)
		m.latency[series{method, path, ""}] = h
	}
	seconds := elapsed.Seconds()
	h.count++
	h.sum += seconds
	for i, bound := range latencyBounds {
		if seconds <= bound {
			h.buckets[i]++
			return
		}
	}
}

// text returns the metrics in the Prometheus text format 0.0.4, in a fixed order.
func (m *metrics) text(uptime float64) []byte {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	var b strings.Builder
	family := func(name, kind, help string) {
		b.WriteString("# HELP " + name + " " + help + "\n# TYPE " + name + " " + kind + "\n")
	}
	sample := func(name, labels, value string) {
		if labels != "" {
			labels = "{" + labels + "}"
		}
		b.WriteString(name + labels + " " + value + "\n")
	}
	family("http_requests_total", "counter", "Requests answered, by method, path and status.")
	for _, s := range sortedSeries(m.requests) {
		sample("http_requests_total", s.labels()+`,status="`+s.status+`"`, strconv.FormatUint(m.requests[s], 10))
	}
	const latency = "http_request_duration_seconds"
	family(latency, "histogram", "Time to answer a request, by method and path.")
	for _, s := range sortedSeries(m.latency) {
		h, total := m.latency[s], uint64(0)
		for i, bound := range latencyBounds {
			total += h.buckets[i]
			sample(latency+"_bucket", s.labels()+`,le="`+decimal(bound)+`"`, strconv.FormatUint(total, 10))
		}
		sample(latency+"_bucket", s.labels()+`,le="+Inf"`, strconv.FormatUint(h.count, 10))
		sample(latency+"_sum", s.labels(), decimal(h.sum))
		sample(latency+"_count", s.labels(), strconv.FormatUint(h.count, 10))
	}
	family("process_uptime_seconds", "gauge", "Time since the service started.")
	sample("process_uptime_seconds", "", decimal(uptime))
	return []byte(b.String())
}

// labels needs no escaping: both values come from fixed sets.
func (s series) labels() string { return `method="` + s.method + `",path="` + s.path + `"` }

func sortedSeries[V any](m map[series]V) []series {
	keys := make([]series, 0, len(m))
	for s := range m {
		keys = append(keys, s)
	}
	slices.SortFunc(keys, func(a, b series) int {
		return strings.Compare(a.path+" "+a.method+" "+a.status, b.path+" "+b.method+" "+b.status)
	})
	return keys
}

func decimal(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }

// Service.

type route struct {
	path, description string
	handle            func(http.ResponseWriter, *http.Request)
}

type service struct {
	config   config
	log      *logger
	metrics  *metrics
	started  time.Time
	system   object // what cannot change while the process lives
	routes   []route
	draining atomic.Bool
}

func newService(c config, l *logger) *service {
	s := &service{config: c, log: l, metrics: newMetrics(), started: time.Now(), system: systemFacts()}
	s.routes = []route{
		{"/", "Facts about the service, the system and the request", s.index},
		{"/health", "Liveness: the process answers", s.health},
		{"/ready", "Readiness: 503 while the service drains", s.ready},
		{"/version", "Version of the service and of its runtime", s.version},
		{"/metrics", "Metrics in the Prometheus text format", s.exposition},
	}
	return s
}

func systemFacts() object {
	hostname, err := os.Hostname()
	if err != nil {
		hostname = "unknown"
	}
	return object{
		{"hostname", hostname},
		{"platform", runtime.GOOS},
		{"platform_version", platformVersion("/etc/os-release", "/usr/lib/os-release")},
		{"architecture", runtime.GOARCH},
		{"cpu_count", runtime.NumCPU()},
		{"go_version", runtime.Version()},
	}
}

// platformVersion names the distribution after the first os-release file that
// does, else gives the kernel's release.
func platformVersion(files ...string) string {
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for _, line := range strings.Split(string(text), "\n") {
			if value, found := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); found {
				if name := unquoteShell(value); name != "" {
					return name
				}
			}
		}
	}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		return strings.TrimSpace(string(release))
	}
	return "unknown"
}

// unquoteShell reads a value as os-release(5) writes it: bare, or quoted as a shell would.
func unquoteShell(s string) string {
	n := len(s)
	if n < 2 || s[0] != s[n-1] || (s[0] != '"' && s[0] != '\'') {
		return s
	}
	if s[0] == '\'' {
		return s[1 : n-1]
	}
	return strings.NewReplacer(`\"`, `"`, `\\`, `\`, `\$`, `$`, "\\`", "`").Replace(s[1 : n-1])
}

// ServeHTTP routes, logs and measures every request, and survives a handler's panic.
func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	answer := &recorder{ResponseWriter: w}
	path, handle := s.route(r)
	if !s.log.json {
		s.logRequest(r)
	}
	defer func() {
		if cause := recover(); cause != nil {
			s.logPanic(r, cause)
			if answer.status != 0 {
				// Part of an answer is on its way: only a broken connection tells the client.
				defer panic(http.ErrAbortHandler)
			} else {
				sendError(answer, http.StatusInternalServerError, "The service failed to answer this request")
			}
		}
		elapsed := time.Since(start)
		s.metrics.observe(methodLabel(r.Method), path, answer.status, elapsed)
		if s.log.json {
			s.logRequest(r, member{"status", answer.status}, member{"duration_ms", float64(elapsed.Microseconds()) / 1000})
		}
	}()
	handle(answer, r)
}

// route returns the label of the request's path and what answers it.
func (s *service) route(r *http.Request) (string, http.HandlerFunc) {
	for _, known := range s.routes {
		if known.path != requestPath(r) {
			continue
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			return known.path, methodNotAllowed
		}
		return known.path, known.handle
	}
	return other, notFound
}

// requestPath is "/" for a target without a path, such as http://host.
func requestPath(r *http.Request) string {
	if r.URL.Path == "" {
		return "/"
	}
	return r.URL.Path
}

func methodLabel(method string) string {
	switch method {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE":
		return method
	}
	return other
}

// logRequest logs the path in its escaped form, which has no control characters.
func (s *service) logRequest(r *http.Request, extra ...member) {
	path := r.URL.EscapedPath()
	if path == "" {
		path = "/"
	}
	if s.log.json {
		extra = append(object{
			{"method", r.Method}, {"path", path}, {"remote_addr", r.RemoteAddr}, {"user_agent", r.UserAgent()},
		}, extra...)
	}
	if requestPath(r) == "/health" && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		s.log.info("Health check from "+r.RemoteAddr, extra...)
		return
	}
	s.log.info("Request: "+r.Method+" "+path+" from "+r.RemoteAddr, extra...)
}

func (s *service) logPanic(r *http.Request, cause any) {
	message := fmt.Sprintf("Panic: %s %s: %v", r.Method, r.URL.EscapedPath(), cause)
	stack := string(debug.Stack())
	if s.log.json {
		s.log.fail(message, member{"stack", stack})
		return
	}
	s.log.fail(message)
	for _, line := range strings.Split(strings.TrimSpace(stack), "\n") {
		s.log.fail("  " + strings.ReplaceAll(line, "\t", "    "))
	}
}

// recorder remembers the status that was sent; 0 means none yet.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	return r.ResponseWriter.Write(p)
}

// send writes a whole answer. The server drops the body of an answer to HEAD
// and keeps the length.
func send(w http.ResponseWriter, status int, contentType string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that went away is no fault of ours
}

func sendJSON(w http.ResponseWriter, status int, body object) {
	send(w, status, "application/json", append(appendJSON(nil, body, 0), '\n'))
}

func sendError(w http.ResponseWriter, status int, message string) {
	sendJSON(w, status, object{{"error", http.StatusText(status)}, {"message", message}})
}

func notFound(w http.ResponseWriter, r *http.Request) {
	sendError(w, http.StatusNotFound, "There is nothing at "+r.URL.EscapedPath()+"; GET / lists the endpoints")
}

func methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Allow", allowedMethods)
	sendError(w, http.StatusMethodNotAllowed, r.Method+" is not supported here; use "+allowedMethods)
}

func (s *service) index(w http.ResponseWriter, r *http.Request) {
	facts := s.facts(r)
	w.Header().Set("Vary", "Accept")
	if !prefersHTML(r.Header.Values("Accept")) {
		sendJSON(w, http.StatusOK, facts)
		return
	}
	w.Header().Set("Content-Security-Policy", pagePolicy())
	w.Header().Set("Referrer-Policy", "no-referrer")
	send(w, http.StatusOK, "text/html; charset=utf-8", []byte(page(facts)))
}

func (s *service) health(w http.ResponseWriter, _ *http.Request) {
	sendJSON(w, http.StatusOK, object{
		{"status", "healthy"},
		{"timestamp", timestamp(time.Now())},
		{"uptime_seconds", s.uptime()},
	})
}

func (s *service) ready(w http.ResponseWriter, _ *http.Request) {
	if s.draining.Load() {
		sendJSON(w, http.StatusServiceUnavailable, object{{"status", "draining"}})
		return
	}
	sendJSON(w, http.StatusOK, object{{"status", "ready"}})
}

func (s *service) version(w http.ResponseWriter, _ *http.Request) {
	sendJSON(w, http.StatusOK, object{
		{"name", serviceName},
		{"version", serviceVersion},
		{"go_version", runtime.Version()},
	})
}

func (s *service) exposition(w http.ResponseWriter, _ *http.Request) {
	body := s.metrics.text(time.Since(s.started).Seconds())
	send(w, http.StatusOK, "text/plain; version=0.0.4; charset=utf-8", body)
}

// facts returns what GET / reports, in the order in which it is reported.
func (s *service) facts(r *http.Request) object {
	// The address is the connection's: anyone can write an X-Forwarded-For.
	clientIP, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		clientIP = r.RemoteAddr
	}
	endpoints := make([]object, 0, len(s.routes))
	for _, known := range s.routes {
		endpoints = append(endpoints, object{
			{"path", known.path}, {"method", http.MethodGet}, {"description", known.description},
		})
	}
	return object{
		{"service", object{
			{"name", serviceName},
			{"version", serviceVersion},
			{"description", serviceDescription},
			{"framework", serviceFramework},
		}},
		{"system", s.system},
		{"runtime", object{
			{"uptime_seconds", s.uptime()},
			{"uptime_human", humanDuration(s.uptime())},
			{"current_time", timestamp(time.Now())},
			{"timezone", "UTC"},
		}},
		{"request", object{
			{"client_ip", clientIP},
			{"user_agent", strings.ToValidUTF8(r.UserAgent(), "\uFFFD")},
			{"method", r.Method},
			{"path", requestPath(r)},
		}},
		{"endpoints", endpoints},
	}
}

func (s *service) uptime() int64 { return int64(time.Since(s.started) / time.Second) }

func timestamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// humanDuration spells out seconds: "1 day, 2 hours, 5 seconds".
func humanDuration(seconds int64) string {
	var parts []string
	for _, unit := range []struct {
		name    string
		seconds int64
	}{{"day", 86400}, {"hour", 3600}, {"minute", 60}, {"second", 1}} {
		n := seconds / unit.seconds
		seconds %= unit.seconds
		if n == 0 && (unit.name != "second" || len(parts) > 0) {
			continue
		}
		name := unit.name
		if n != 1 {
			name += "s"
		}
		parts = append(parts, strconv.FormatInt(n, 10)+" "+name)
	}
	return strings.Join(parts, ", ")
}

// Content negotiation (RFC 9110, section 12.5.1).

// prefersHTML reports whether a client rates text/html above application/json.
// At equal rates the one that it names more precisely wins, and JSON otherwise.
func prefersHTML(accept []string) bool {
	htmlRate, htmlPrecision := rate(accept, "text", "html")
	jsonRate, jsonPrecision := rate(accept, "application", "json")
	return htmlRate > jsonRate || htmlRate > 0 && htmlRate == jsonRate && htmlPrecision > jsonPrecision
}

// rate returns the weight, in thousandths, that the most precise matching range
// gives a media type, and that precision: 0 for no match, 1 for */*, 2 for
// type/*, 3 for type/subtype.
func rate(accept []string, kind, subtype string) (weight, precision int) {
	for _, mediaRange := range strings.Split(strings.Join(accept, ","), ",") {
		parts := strings.Split(mediaRange, ";")
		match := 0
		switch strings.ToLower(strings.TrimSpace(parts[0])) {
		case kind + "/" + subtype:
			match = 3
		case kind + "/*":
			match = 2
		case "*/*":
			match = 1
		}
		if value, valid := quality(parts[1:]); valid && match > precision {
			weight, precision = value, match
		}
	}
	return weight, precision
}

// quality finds the q parameter, in thousandths; 1000 where there is none.
func quality(parameters []string) (int, bool) {
	for _, parameter := range parameters {
		name, value, _ := strings.Cut(strings.TrimSpace(parameter), "=")
		if !strings.EqualFold(name, "q") {
			continue
		}
		whole, fraction, _ := strings.Cut(value, ".")
		if (whole != "0" && whole != "1") || len(fraction) > 3 {
			return 0, false
		}
		n, ok := wholeNumber(whole+fraction+"000"[len(fraction):], 1000)
		return n, ok
	}
	return 1000, true
}

// The page. It loads nothing from anywhere; its policy admits just its own style and script.

const pageStyle = `
:root{color-scheme:light dark;--back:#f4f6f8;--card:#fff;--ink:#1c2733;--dim:#5a6877;--line:#dde3e9;--mark:#0b7285;--good:#2b8a3e;--bad:#c92a2a}
@media (prefers-color-scheme:dark){:root{--back:#11161c;--card:#1a212a;--ink:#e6ebf0;--dim:#9aa8b6;--line:#2c3742;--mark:#66d9e8;--good:#69db7c;--bad:#ff8787}}
*{box-sizing:border-box}
body{margin:0;padding:1.5rem 1rem;background:var(--back);color:var(--ink);font:1rem/1.5 system-ui,sans-serif}
header,main{max-width:64rem;margin:0 auto}
header p{margin:.25rem 0 1.25rem;color:var(--dim)}
h1{margin:0;font-size:1.6rem;line-height:1.2;overflow-wrap:anywhere}
h2{margin:0 0 .5rem;font-size:1rem;color:var(--mark);text-transform:capitalize}
main{display:grid;gap:1rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr))}
section{padding:1rem;background:var(--card);border:1px solid var(--line);border-radius:.6rem;min-width:0}
section.wide{grid-column:1/-1}
dl{margin:0}
dl div{display:grid;grid-template-columns:minmax(6rem,9rem) minmax(0,1fr);gap:.75rem;padding:.3rem 0;border-top:1px solid var(--line)}
dl div:first-child{border-top:0}
dt{color:var(--dim)}
dd{margin:0;overflow-wrap:anywhere;font-variant-numeric:tabular-nums}
a{color:var(--mark)}
@media (max-width:30rem){dl div{grid-template-columns:minmax(0,1fr);gap:0}dt{font-size:.85rem}}
#state{font-weight:600;color:var(--dim)}
#state.good{color:var(--good)}
#state.bad{color:var(--bad)}
`

const pageScript = `
(function () {
  "use strict";
  var state = document.getElementById("state");
  function say(text, kind) {
    if (state.textContent !== text) state.textContent = text;
    state.className = kind;
  }
  function show(prefix, facts) {
    Object.keys(facts).forEach(function (key) {
      var value = facts[key], name = prefix + key;
      if (Array.isArray(value)) return;
      if (typeof value === "object") return show(name + ".", value);
      var place = document.querySelector('[data-fact="' + CSS.escape(name) + '"]');
      if (place) place.textContent = value;
    });
  }
  function refresh() {
    if (document.hidden) return;
    fetch(location.pathname, {headers: {Accept: "application/json"}, cache: "no-store"}).then(function (answer) {
      if (!answer.ok) throw new Error(answer.status);
      return answer.json();
    }).then(function (facts) {
      show("", facts);
      say("Live, refreshed every 5 seconds", "good");
    }).catch(function () {
      say("No answer; the facts below may be old", "bad");
    });
  }
  document.addEventListener("visibilitychange", refresh);
  setInterval(refresh, 5000);
  refresh();
})();
`

// pagePolicy returns the Content-Security-Policy of the page.
func pagePolicy() string {
	source := func(text string) string {
		sum := sha256.Sum256([]byte(text))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	return "default-src 'none'; connect-src 'self'; img-src data:; style-src " + source(pageStyle) +
		"; script-src " + source(pageScript) + "; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}

// page renders the facts as one self-contained document. Every value is
// escaped, the constant ones too: which are constant may change.
func page(facts object) string {
	var b strings.Builder
	b.WriteString("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n" +
		"<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n" +
		"<title>DevOps Info Service</title>\n<link rel=\"icon\" href=\"data:,\">\n" +
		"<noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript>\n<style>" + pageStyle + "</style>\n</head>\n" +
		"<body>\n<header>\n<h1>DevOps Info Service</h1>\n<p><span id=\"state\">Refreshed every 5 seconds</span></p>\n</header>\n<main>\n")
	for _, section := range facts {
		switch content := section.value.(type) {
		case object:
			openSection(&b, section.key, "")
			for _, fact := range content {
				row(&b, html.EscapeString(fact.key), section.key+"."+fact.key, html.EscapeString(content.text(fact.key)))
			}
		case []object:
			openSection(&b, section.key, "wide")
			for _, entry := range content {
				path := html.EscapeString(entry.text("path"))
				row(&b, `<a href="`+path+`">`+path+`</a>`, "", html.EscapeString(entry.text("description")))
			}
		}
		b.WriteString("</dl>\n</section>\n")
	}
	b.WriteString("</main>\n<script>" + pageScript + "</script>\n</body>\n</html>\n")
	return b.String()
}

func openSection(b *strings.Builder, title, class string) {
	if class != "" {
		class = ` class="` + class + `"`
	}
	b.WriteString("<section" + class + ">\n<h2>" + html.EscapeString(title) + "</h2>\n<dl>\n")
}

// row takes its term and its value as HTML.
func row(b *strings.Builder, term, fact, value string) {
	if fact != "" {
		fact = ` data-fact="` + html.EscapeString(fact) + `"`
	}
	b.WriteString("<div><dt>" + term + "</dt><dd" + fact + ">" + value + "</dd></div>\n")
}

// Life of the process.

// run serves on the listener until a signal or a failure, and returns the exit code.
func (s *service) run(listener net.Listener, signals <-chan os.Signal) int {
	server := &http.Server{
		Handler:                      s,
		ErrorLog:                     log.New(s.log, "", 0),
		ReadHeaderTimeout:            5 * time.Second,
		ReadTimeout:                  10 * time.Second,
		WriteTimeout:                 15 * time.Second,
		IdleTimeout:                  60 * time.Second,
		MaxHeaderBytes:               16 << 10,
		DisableGeneralOptionsHandler: true,
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	s.log.info("Server is running on http://" + s.config.address())
	s.log.info("Press Ctrl+C to stop")

	var received os.Signal
	select {
	case err := <-failed:
		s.log.fail("The server stopped: " + err.Error())
		return 1
	case received = <-signals:
	}
	s.draining.Store(true)
	server.SetKeepAlivesEnabled(false)
	s.log.info("Received " + signalName(received) + ": no longer ready, finishing open requests")

	drained := make(chan error, 1)
	go func() {
		time.Sleep(s.config.shutdownDelay)
		limit, cancel := context.WithTimeout(context.Background(), drainLimit)
		defer cancel()
		drained <- server.Shutdown(limit)
	}()
	select {
	case received = <-signals:
		s.log.info("Received " + signalName(received) + " again: stopping at once")
		return exitCode(received)
	case err := <-drained:
		if err != nil {
			_ = server.Close()
			s.log.fail("Some requests were not finished in time and have been cut off")
		}
	}
	s.log.info("Stopped")
	return 0
}

func signalName(s os.Signal) string {
	switch s {
	case syscall.SIGTERM:
		return "SIGTERM"
	case syscall.SIGINT:
		return "SIGINT"
	}
	return s.String()
}

// exitCode is the one that a shell reports for a process that a signal ended.
func exitCode(s os.Signal) int {
	if number, ok := s.(syscall.Signal); ok {
		return 128 + int(number)
	}
	return 1
}

// listenFailure says in a sentence why an address cannot be had and what to do.
func listenFailure(address string, err error) string {
	var number syscall.Errno
	switch errors.As(err, &number); number {
	case syscall.EADDRINUSE:
		return "cannot listen on " + address + ": the address is in use; stop what uses it or set another PORT"
	case syscall.EACCES:
		return "cannot listen on " + address + ": permission denied; set a PORT from 1024 up"
	case syscall.EADDRNOTAVAIL:
		return "cannot listen on " + address + ": no interface has this address; set another HOST"
	}
	return "cannot listen on " + address + ": " + oneLine(err.Error())
}

func main() {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	settings, err := readConfig(os.Getenv)
	if err != nil {
		fmt.Fprintln(os.Stderr, serviceName+": "+err.Error())
		os.Exit(2)
	}
	listener, err := net.Listen("tcp", settings.address())
	if err != nil {
		fmt.Fprintln(os.Stderr, serviceName+": "+listenFailure(settings.address(), err))
		os.Exit(1)
	}
	s := newService(settings, newLogger(os.Stderr, settings.jsonLogs))
	s.log.info("Starting DevOps Info Service (Go) on " + settings.address())
	os.Exit(s.run(listener, signals))
}
