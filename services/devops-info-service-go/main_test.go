package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// lines collects a log that several goroutines write.
type lines struct {
	mutex sync.Mutex
	text  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.text.String()
}

func testService(jsonLogs bool) (*service, *lines) {
	out := new(lines)
	return newService(config{host: "127.0.0.1", port: "8000", jsonLogs: jsonLogs}, newLogger(out, jsonLogs)), out
}

func ask(s http.Handler, method, target string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func TestReadConfig(t *testing.T) {
	for _, c := range []struct {
		env     map[string]string
		address string
		fault   string
	}{
		{nil, "0.0.0.0:8000", ""},
		{map[string]string{"HOST": "", "PORT": "", "LOG_FORMAT": "", "SHUTDOWN_DELAY": ""}, "0.0.0.0:8000", ""},
		{map[string]string{"HOST": "::1", "PORT": "1"}, "[::1]:1", ""},
		{map[string]string{"PORT": "65535", "LOG_FORMAT": "text", "SHUTDOWN_DELAY": "0"}, "0.0.0.0:65535", ""},
		{map[string]string{"PORT": "65536"}, "", "PORT must be"},
		{map[string]string{"PORT": "0"}, "", "PORT must be"},
		{map[string]string{"PORT": "-1"}, "", "PORT must be"},
		{map[string]string{"PORT": "+80"}, "", "PORT must be"},
		{map[string]string{"PORT": " 80"}, "", "PORT must be"},
		{map[string]string{"PORT": "0x50"}, "", "PORT must be"},
		{map[string]string{"PORT": "http"}, "", "PORT must be"},
		{map[string]string{"PORT": "1\n2"}, "", `"1\n2"`},
		{map[string]string{"PORT": "99999999999999999999"}, "", "PORT must be"},
		{map[string]string{"LOG_FORMAT": "xml"}, "", "LOG_FORMAT must be"},
		{map[string]string{"SHUTDOWN_DELAY": "301"}, "", "SHUTDOWN_DELAY must be"},
		{map[string]string{"SHUTDOWN_DELAY": "5s"}, "", "SHUTDOWN_DELAY must be"},
	} {
		got, err := readConfig(func(name string) string { return c.env[name] })
		if c.fault == "" {
			if err != nil || got.address() != c.address {
				t.Errorf("%v: %q, %v", c.env, got.address(), err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.fault) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: error %v, wanted one line with %q", c.env, err, c.fault)
		}
	}
}

func TestJSONHasTheLayoutOfTheStandardLibrary(t *testing.T) {
	tree := object{
		{"text", "x"}, {"yes", true}, {"number", 7}, {"long", int64(-9)}, {"float", 1.25},
		{"nothing", object{}}, {"none", []object{}},
		{"inner", object{{"a", 1}, {"list", []object{{{"b", 2}}, {{"c", "d"}}}}}},
	}
	line := appendJSON(nil, tree, compact)
	var want bytes.Buffer
	if err := json.Indent(&want, line, "", "  "); err != nil {
		t.Fatal(err)
	}
	if got := string(appendJSON(nil, tree, 0)); got != want.String() {
		t.Errorf("got\n%s\nwanted\n%s", got, want.String())
	}
	var small bytes.Buffer
	if err := json.Compact(&small, line); err != nil || small.String() != string(line) {
		t.Errorf("%s is not compact: %v", line, err)
	}
}

func TestJSONStringsRoundTrip(t *testing.T) {
	all := make([]rune, 0, 0x3000)
	for r := rune(0); r < 0x3000; r++ {
		all = append(all, r)
	}
	for _, s := range []string{"", string(all), `<b>&"'\/`, "\U0001F600", "\u2028", "a\xffb\xc3", "\xed\xa0\x80", "\uFFFD"} {
		encoded := appendJSONString(nil, s)
		var got string
		if err := json.Unmarshal(encoded, &got); err != nil {
			t.Fatalf("%q: %v", encoded, err)
		}
		standard, _ := json.Marshal(s)
		var want string
		if err := json.Unmarshal(standard, &want); err != nil || got != want {
			t.Errorf("%q came back as %q, wanted %q", s, got, want)
		}
		if bytes.ContainsFunc(encoded, func(r rune) bool { return r < 0x20 }) {
			t.Errorf("%q has a raw control character", encoded)
		}
	}
}

func TestOneLine(t *testing.T) {
	for given, want := range map[string]string{
		"Request: GET /é \"x\"": "Request: GET /é \"x\"",
		"a\nb":                  `a\nb`,
		"\x1b[2J":               `\x1b[2J`,
		"a\u202eb":              `a\u202eb`,
		"a\u2028b":              `a\u2028b`,
		"a\xffb":                `a\xffb`,
	} {
		if got := oneLine(given); got != want {
			t.Errorf("%q became %q, wanted %q", given, got, want)
		}
	}
}

func TestHumanDuration(t *testing.T) {
	for seconds, want := range map[int64]string{
		0: "0 seconds", 1: "1 second", 60: "1 minute", 3600: "1 hour", 86400: "1 day",
		35: "35 seconds", 3725: "1 hour, 2 minutes, 5 seconds", 2*86400 + 7: "2 days, 7 seconds",
	} {
		if got := humanDuration(seconds); got != want {
			t.Errorf("%d: %q, wanted %q", seconds, got, want)
		}
	}
}

func TestPlatformVersion(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	missing := filepath.Join(dir, "missing")
	silent := write("silent", "NAME=x\n#PRETTY_NAME=\"no\"\n")
	for text, want := range map[string]string{
		"NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n": "Debian GNU/Linux 12",
		"PRETTY_NAME='it is'":                           "it is",
		"PRETTY_NAME=Bare\n":                            "Bare",
		`PRETTY_NAME="a \"b\" \$c \\d"`:                 `a "b" $c \d`,
		"PRETTY_NAME=\"\n":                              `"`,
	} {
		if got := platformVersion(missing, silent, write("release", text)); got != want {
			t.Errorf("%q gave %q, wanted %q", text, got, want)
		}
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Skip("no /proc/sys/kernel/osrelease")
	}
	if got := platformVersion(missing, silent); got != strings.TrimSpace(string(kernel)) {
		t.Errorf("%q is not the kernel's release %q", got, kernel)
	}
}

func TestPrefersHTML(t *testing.T) {
	for accept, want := range map[string]bool{
		"":                 false,
		"*/*":              false,
		"text/html":        true,
		"TEXT/HTML;Q=0.5":  true,
		"application/json": false,
		"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8": true,
		"text/html, application/json":                   false,
		"application/json, text/html;q=0.9":             false,
		"application/json;q=0.8, text/html;q=0.801":     true,
		"text/html;q=0.5, */*":                          false,
		"text/html;q=0":                                 false,
		"text/html;q=0, text/*":                         false,
		"text/*":                                        true,
		"text/*;q=0.2, */*;q=0.1":                       true,
		"text/html, */*":                                true,
		"text/html;q=0.000, application/json;q=0.000":   false,
		"text/html;q=2, application/json;q=0.1":         false,
		"text/html;q=, application/json;q=0.1":          false,
		"text/html;q=0.1234":                            false,
		"text/html;q=1.001":                             false,
		"text/html;q=nan":                               false,
		"text/html ; charset=utf-8 ; q=0.4 , */*;q=0.3": true,
		"image/png":                                     false,
		",;,/,text/html":                                true,
	} {
		if got := prefersHTML([]string{accept}); got != want {
			t.Errorf("%q: %v", accept, got)
		}
	}
	if prefersHTML(nil) || !prefersHTML([]string{"image/png", "text/html"}) {
		t.Error("several Accept fields must count as one list, none as no preference")
	}
}

func TestRoutes(t *testing.T) {
	s, _ := testService(false)
	for _, c := range []struct {
		method, target string
		status         int
	}{
		{"GET", "/", 200}, {"HEAD", "/", 200}, {"GET", "/?a=b", 200}, {"GET", "/health", 200}, {"GET", "/ready", 200},
		{"GET", "/version", 200}, {"GET", "/metrics", 200},
		{"GET", "/healt", 404}, {"GET", "/health/", 404}, {"GET", "//", 404}, {"POST", "/nowhere", 404}, {"OPTIONS", "*", 404},
		{"POST", "/", 405}, {"DELETE", "/health", 405}, {"OPTIONS", "/ready", 405}, {"BREW", "/version", 405},
	} {
		w := ask(s, c.method, c.target)
		if w.Code != c.status {
			t.Errorf("%s %s: %d, wanted %d", c.method, c.target, w.Code, c.status)
		}
		if allow := w.Header().Get("Allow"); (allow == "GET, HEAD") != (c.status == 405) {
			t.Errorf("%s %s: Allow is %q", c.method, c.target, allow)
		}
		if length := w.Header().Get("Content-Length"); length != fmt.Sprint(w.Body.Len()) {
			t.Errorf("%s %s: Content-Length is %s for %d bytes", c.method, c.target, length, w.Body.Len())
		}
		if c.target != "/metrics" && !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s %s: no JSON: %s", c.method, c.target, w.Body)
		}
	}
}

func TestAPanicIsAnErrorTheClientAndTheLogSee(t *testing.T) {
	for _, jsonLogs := range []bool{false, true} {
		s, out := testService(jsonLogs)
		s.routes = append(s.routes, route{"/panic", "", func(http.ResponseWriter, *http.Request) {
			panic("broken\n2026/02/02 11:18:39 main.go:1: forged")
		}})
		w := ask(s, "GET", "/panic")
		if w.Code != 500 || w.Header().Get("Content-Type") != "application/json" || !json.Valid(w.Body.Bytes()) {
			t.Fatalf("answered %d %s", w.Code, w.Body)
		}
		if strings.Contains(w.Body.String(), "broken") {
			t.Error("the client was told the cause")
		}
		if !strings.Contains(out.String(), `Panic: GET /panic: broken\n2026`) || !strings.Contains(out.String(), "main_test.go") {
			t.Errorf("no cause or no stack in the log:\n%s", out)
		}
		if strings.Contains(out.String(), "\n2026/02/02") {
			t.Errorf("the log was forged:\n%s", out)
		}
		if !strings.Contains(string(s.metrics.text(0)), `http_requests_total{method="GET",path="/panic",status="500"} 1`) {
			t.Errorf("not counted:\n%s", s.metrics.text(0))
		}
	}
}

func TestAPanicInTheMiddleOfAnAnswerBreaksTheConnection(t *testing.T) {
	s, out := testService(false)
	s.routes = append(s.routes, route{"/half", "", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "half")
		panic("broken")
	}})
	server := httptest.NewServer(s)
	defer server.Close()
	answer, err := http.Get(server.URL + "/half")
	if err == nil {
		_, err = io.ReadAll(answer.Body)
		answer.Body.Close()
	}
	if err == nil {
		t.Error("the client took half an answer for a whole one")
	}
	if !strings.Contains(out.String(), "Panic: GET /half: broken") {
		t.Errorf("not logged:\n%s", out)
	}
}

func TestLogLines(t *testing.T) {
	s, out := testService(false)
	ask(s, "GET", "/healt")
	ask(s, "GET", "/health")
	ask(s, "POST", "/a%0a%1b%20b?c=d")
	pattern := regexp.MustCompile(`^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d main\.go:\d+: (.*)$`)
	want := []string{
		"Request: GET /healt from 192.0.2.1:1234",
		"Health check from 192.0.2.1:1234",
		"Request: POST /a%0a%1b%20b from 192.0.2.1:1234",
	}
	got := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(got) != len(want) {
		t.Fatalf("%q", got)
	}
	for i, line := range got {
		if match := pattern.FindStringSubmatch(line); match == nil || match[1] != want[i] {
			t.Errorf("%q, wanted %q", line, want[i])
		}
	}
}

func TestJSONLogLines(t *testing.T) {
	s, out := testService(true)
	ask(s, "GET", "/healt", "User-Agent", "a\"b\xff")
	s.log.fail("two\nlines")
	for i, line := range strings.Split(strings.TrimSpace(out.String()), "\n") {
		var record map[string]any
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if _, err := time.Parse(time.RFC3339, fmt.Sprint(record["time"])); err != nil {
			t.Error(err)
		}
		if source := fmt.Sprint(record["source"]); !regexp.MustCompile(`^main(_test)?\.go:\d+$`).MatchString(source) {
			t.Errorf("source is %q", source)
		}
		wanted := []map[string]any{
			{"level": "info", "message": "Request: GET /healt from 192.0.2.1:1234", "method": "GET", "path": "/healt",
				"status": 404.0, "user_agent": "a\"b\uFFFD", "remote_addr": "192.0.2.1:1234"},
			{"level": "error", "message": "two\nlines"},
		}[i]
		for key, value := range wanted {
			if record[key] != value {
				t.Errorf("%s is %v, wanted %v", key, record[key], value)
			}
		}
	}
}

func TestMetricsStayBounded(t *testing.T) {
	s, _ := testService(false)
	for i := range 50 {
		ask(s, "GET", fmt.Sprintf("/unknown/%d", i))
		ask(s, fmt.Sprintf("METHOD%d", i), "/version")
	}
	text := string(s.metrics.text(12.5))
	for _, want := range []string{
		`http_requests_total{method="GET",path="other",status="404"} 50`,
		`http_requests_total{method="other",path="/version",status="405"} 50`,
		`http_request_duration_seconds_count{method="GET",path="other"} 50`,
		`http_request_duration_seconds_bucket{method="GET",path="other",le="+Inf"} 50`,
		"process_uptime_seconds 12.5",
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if n := strings.Count(text, "http_requests_total{"); n != 2 {
		t.Errorf("%d series", n)
	}
}

func TestHistogramBucketsAreCumulative(t *testing.T) {
	m := newMetrics()
	for _, elapsed := range []time.Duration{0, 500 * time.Microsecond, 600 * time.Microsecond, time.Minute} {
		m.observe("GET", "/", 200, elapsed)
	}
	text := string(m.text(0))
	for bound, want := range map[string]int{"0.0005": 2, "0.001": 3, "10": 3, "+Inf": 4} {
		line := fmt.Sprintf("http_request_duration_seconds_bucket{method=\"GET\",path=\"/\",le=\"%s\"} %d\n", bound, want)
		if !strings.Contains(text, line) {
			t.Errorf("no %s in\n%s", line, text)
		}
	}
}

func TestPageEscapesAndStandsAlone(t *testing.T) {
	s, _ := testService(false)
	w := ask(s, "GET", "/", "Accept", "text/html", "User-Agent", `"><script>alert('1')</script>&`)
	body := w.Body.String()
	if strings.Contains(body, "<script>alert") || !strings.Contains(body, "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;") {
		t.Error("the user agent is not escaped")
	}
	if regexp.MustCompile(`(?i)(src|href)="(https?:)?//`).MatchString(body) || strings.Contains(body, "url(") {
		t.Error("the page loads something")
	}
	if w.Header().Get("Vary") != "Accept" || !strings.Contains(w.Header().Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("headers are %v", w.Header())
	}
}

// running is a service with a real listener.
type running struct {
	*service
	log     *lines
	address string
	signals chan os.Signal
	code    chan int
}

func start(t *testing.T, prepare func(*service)) running {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, out := testService(false)
	prepare(s)
	r := running{s, out, listener.Addr().String(), make(chan os.Signal, 2), make(chan int, 1)}
	go func() { r.code <- s.run(listener, r.signals) }()
	t.Cleanup(func() { listener.Close() })
	return r
}

func (r running) wait(t *testing.T) int {
	t.Helper()
	select {
	case code := <-r.code:
		return code
	case <-time.After(time.Minute):
		t.Fatalf("still running:\n%s", r.log)
		return -1
	}
}

func blocked(entered chan<- struct{}, release <-chan struct{}) func(*service) {
	return func(s *service) {
		s.routes = append(s.routes, route{"/slow", "", func(w http.ResponseWriter, _ *http.Request) {
			entered <- struct{}{}
			<-release
			sendJSON(w, 200, object{{"slow", true}})
		}})
	}
}

func TestSIGTERMLetsAnOpenRequestFinish(t *testing.T) {
	entered, release := make(chan struct{}, 1), make(chan struct{})
	r := start(t, blocked(entered, release))
	answered := make(chan error, 1)
	go func() {
		answer, err := http.Get("http://" + r.address + "/slow")
		if err == nil {
			_, err = io.ReadAll(answer.Body)
			answer.Body.Close()
		}
		answered <- err
	}()
	<-entered
	r.signals <- syscall.SIGTERM
	for !r.draining.Load() {
		time.Sleep(time.Millisecond)
	}
	if w := ask(r.service, "GET", "/ready"); w.Code != 503 {
		t.Errorf("/ready is %d", w.Code)
	}
	close(release)
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if code := r.wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if !strings.Contains(r.log.String(), "Received SIGTERM") || !strings.Contains(r.log.String(), "Stopped") {
		t.Errorf("log:\n%s", r.log)
	}
}

func TestASecondSignalStopsAtOnce(t *testing.T) {
	entered, release := make(chan struct{}, 1), make(chan struct{})
	defer close(release)
	r := start(t, blocked(entered, release))
	go func() {
		if answer, err := http.Get("http://" + r.address + "/slow"); err == nil {
			answer.Body.Close()
		}
	}()
	<-entered
	r.signals <- syscall.SIGTERM
	r.signals <- syscall.SIGINT
	if code := r.wait(t); code != 130 {
		t.Errorf("exit code %d", code)
	}
}

func TestShutdownDelayKeepsAnsweringButNotReady(t *testing.T) {
	r := start(t, func(s *service) { s.config.shutdownDelay = 500 * time.Millisecond })
	r.signals <- syscall.SIGTERM
	for !r.draining.Load() {
		time.Sleep(time.Millisecond)
	}
	connection, err := net.Dial("tcp", r.address)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	fmt.Fprint(connection, "GET /ready HTTP/1.1\r\nHost: x\r\n\r\n")
	answer, err := http.ReadResponse(bufio.NewReader(connection), nil)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != 503 || !answer.Close {
		t.Errorf("/ready is %d, Connection: close is %v", answer.StatusCode, answer.Close)
	}
	if code := r.wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestALostListenerIsAFailure(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	s, out := testService(false)
	if code := s.run(listener, make(chan os.Signal)); code != 1 || !strings.Contains(out.String(), "The server stopped") {
		t.Errorf("exit code %d, log:\n%s", code, out)
	}
}

func TestListenFailures(t *testing.T) {
	for cause, want := range map[error]string{
		syscall.EADDRINUSE:    "in use",
		syscall.EACCES:        "permission denied",
		syscall.EADDRNOTAVAIL: "no interface",
		errors.New("a\nb"):    `a\nb`,
	} {
		got := listenFailure("h:1", fmt.Errorf("listen: %w", cause))
		if !strings.Contains(got, want) || !strings.Contains(got, "cannot listen on h:1") || strings.Contains(got, "\n") {
			t.Errorf("%v: %q", cause, got)
		}
	}
}
