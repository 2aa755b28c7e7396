/* load: an HTTP/1.1 load generator for streaming LLM gateways. One thread, epoll.
 *
 *   load --port P [--host 127.0.0.1] [--path /v1/chat/completions] --body JSON
 *        [--header 'k: v']... [--protocol sse|ndjson|anthropic|ollama|responses|gemini]
 *        (--conns N | --rate R) [--duration S] [--requests N] [--ramp S]
 *        [--expect TOKENS] [--timeout S] [--vary request|conn]
 *
 * Closed loop (--conns): N keep-alive connections, each sends its next request when
 * the last reply ends. Open loop (--rate): requests fall due at a fixed rate, whatever
 * the replies do, and are timed from when they were due (no coordinated omission).
 * A stream's lines are split as they come; a line with "w<n>@<µs>" in it is token n that
 * mock stamped at its write(), so lag = receipt - stamp, without any gap arithmetic, and a
 * token out of turn (lost, doubled, overtaken) is an error of its own kind, "order".
 * The first run of # in the body becomes a number of the request's own (or, --vary conn, of the connection's).
 * No new request starts after --duration; open ones may finish within --timeout.
 * Writes one JSON object to stdout. All times in µs.
 */
#include "common.h"

/* log-linear histogram, 128 steps per power of two: below 0.8 % error */
typedef struct { uint32_t n[40 * 128]; int64_t count, max; double sum; } Hist;
static void hist_add(Hist *h, int64_t v) {
    if (v < 0) v = 0;
    if (v > h->max) h->max = v;
    h->count++; h->sum += v;
    int e = 0;
    uint64_t m = v;
    while (m >= 256) { m >>= 1; e++; }
    h->n[e ? e * 128 + (int)m : (int)m]++;      /* m in 128..255 when e > 0 */
}
static int64_t hist_at(const Hist *h, double q) {
    int64_t need = (int64_t)(q * h->count + 0.5), seen = 0;
    if (need < 1) need = 1;
    for (int i = 0; i < 40 * 128; i++)
        if ((seen += h->n[i]) >= need) {
            int e = i < 256 ? 0 : i / 128 - 1;
            int64_t lo = e ? (int64_t)(i - e * 128) << e : i;
            return lo > h->max ? h->max : lo;
        }
    return h->max;
}
static void hist_print(const char *name, const Hist *h) {
    printf("\"%s\":{\"n\":%" PRId64 ",\"mean\":%.1f,\"p50\":%" PRId64 ",\"p90\":%" PRId64 ",\"p99\":%" PRId64
           ",\"p999\":%" PRId64 ",\"max\":%" PRId64 "}", name, h->count, h->count ? h->sum / h->count : 0.0,
           h->count ? hist_at(h, .5) : 0, h->count ? hist_at(h, .9) : 0, h->count ? hist_at(h, .99) : 0,
           h->count ? hist_at(h, .999) : 0, h->max);
}

enum { IDLE, CONNECTING, HEAD, BODY, SIZE, DATA, CRLF, TRAILER };
typedef struct Conn {
    int fd, state, status;
    bool close_after, fresh, done;  /* fresh: nothing has come back on this connection yet */
    int64_t left;                   /* bytes left of the body or chunk */
    int64_t t0, first, prev, tokens;
    bool disorder;
    Buf head, line;
    struct Conn *next_idle;
} Conn;

static const char *host = "127.0.0.1", *path = "/v1/chat/completions", *body = "{}";
static int port, ep, n_expect = -1;
static enum { SSE, NDJSON, ANTHROPIC, OLLAMA, RESPONSES, GEMINI } protocol;
static const char *names[] = {"sse", "ndjson", "anthropic", "ollama", "responses", "gemini"};
static bool streaming_body;     /* the request asks for a stream */
static size_t vary_at, vary_len; static bool vary_by_conn;
static Buf request;
static Conn *conns; static int n_conns, n_used;
static Conn *idle;
static Hist h_ttft, h_gap, h_lag, h_total, h_late;
static int64_t n_started, n_sent, n_ok, n_active, n_peak, n_tokens, n_lines, n_bytes, n_connects;
static int64_t e_connect, e_status, e_reset, e_short, e_stream, e_order, e_timeout;
static int64_t t_begin, t_end, t_ok_last;
static char sample[256];

static void keep_sample(const char *what, const char *p, size_t n) {
    if (!*sample) snprintf(sample, sizeof sample, "%s: %.*s", what, (int)(n < 200 ? n : 200), p);
}

static void arm(Conn *c, uint32_t events) {
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &(struct epoll_event){.events = events, .data.ptr = c});
}
static void drop(Conn *c) { if (c->fd >= 0) close(c->fd); c->fd = -1; }

static void finish(Conn *c, int64_t *error) {
    n_active--;
    if (error) { ++*error; drop(c); }
    else {
        t_ok_last = now_us();
        n_ok++;
        hist_add(&h_total, t_ok_last - c->t0);
        if (c->close_after) drop(c);
    }
    c->state = IDLE;
    c->next_idle = idle;
    idle = c;
}

static void send_request(Conn *c) {
    c->state = HEAD; c->status = 0; c->first = c->prev = c->tokens = 0; c->done = c->disorder = false;
    int64_t n = t_begin + (vary_by_conn ? c - conns : n_sent++);     /* another run's numbers are others */
    for (size_t i = vary_len; i--; n /= 10) request.p[vary_at + i] = '0' + n % 10;
    buf_reset(&c->head); buf_reset(&c->line);
    if (write(c->fd, request.p, request.len) != (ssize_t)request.len) finish(c, &e_reset);
}

static void begin(Conn *c, int64_t due) {
    c->t0 = due;
    n_started++;
    if (++n_active > n_peak) n_peak = n_active;
    if (c->fd >= 0) { c->fresh = false; send_request(c); return; }
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, host, &a.sin_addr);
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) { finish(c, &e_connect); return; }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c->fresh = true; c->state = CONNECTING; n_connects++;
    epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &(struct epoll_event){.events = EPOLLOUT, .data.ptr = c});
    if (connect(c->fd, (void *)&a, sizeof a) && errno != EINPROGRESS) finish(c, &e_connect);
}

static void on_line(Conn *c, const char *p, size_t n, int64_t now) {
    if (n && p[n - 1] == '\r') n--;
    if (!n) return;
    if (protocol == NDJSON || protocol == OLLAMA) {
        if (protocol == OLLAMA ? memmem(p, n, "\"done\":true", 11) : memmem(p, n, "\"type\":\"done\"", 13)) {
            c->done = true;
            if (protocol == NDJSON) { n_lines++; return; }      /* it holds the whole text again */
        } else if (memmem(p, n, "\"error\"", 7)) { c->status = -1; keep_sample("line", p, n); }
    } else if (streaming_body) {
        if (n < 5 || memcmp(p, "data:", 5)) return;
        if (protocol == GEMINI) {       /* the end may stand in the chunk of the last token */
            if (memmem(p, n, "\"finishReason\"", 14)) c->done = true;
        } else if (protocol == RESPONSES) {
            if (memmem(p, n, "\"type\":\"response.completed\"", 27)) c->done = true;
            if (!memmem(p, n, "\"type\":\"response.output_text.delta\"", 35)) return;    /* others hold the whole text again */
        } else if (protocol == SSE ? n <= 13 && memmem(p, n, "[DONE]", 6) : memmem(p, n, "\"message_stop\"", 14) != NULL) { c->done = true; return; }
    }
    n_lines++;
    const char *begin = p, *end = p + n;
    bool any = false;
    while ((p = memchr(p, '@', end - p))) {     /* a gateway may put several tokens in an event */
        int64_t stamp = 0, number = 0, unit = 1;
        for (const char *d = p; d > begin && d[-1] >= '0' && d[-1] <= '9'; unit *= 10) number += (*--d - '0') * unit;
        for (p++; p < end && *p >= '0' && *p <= '9'; p++) stamp = stamp * 10 + (*p - '0');
        if (!stamp) continue;
        c->tokens++; n_tokens++; any = true;
        if (unit > 1 && number != c->tokens) c->disorder = true;
        hist_add(&h_lag, now - stamp);
    }
    if (!any) return;
    if (!c->first) { c->first = now; hist_add(&h_ttft, now - c->t0); }
    else hist_add(&h_gap, now - c->prev);
    c->prev = now;
}

static void payload(Conn *c, const char *p, size_t n, int64_t now) {
    n_bytes += n;
    while (n) {
        const char *nl = memchr(p, '\n', n);
        if (!nl) { buf_add(&c->line, p, n); return; }
        size_t k = nl - p;
        if (c->line.len) {
            buf_add(&c->line, p, k);
            on_line(c, c->line.p, c->line.len, now);
            buf_reset(&c->line);
        } else on_line(c, p, k, now);
        p += k + 1; n -= k + 1;
    }
}

static void complete(Conn *c, int64_t now) {
    int64_t *error = NULL;
    if (c->line.len) { on_line(c, c->line.p, c->line.len, now); c->line.len = 0; }
    if (c->status != 200) {
        keep_sample("reply", c->line.p && *c->line.p ? c->line.p : c->head.p, c->line.p && *c->line.p ? strlen(c->line.p) : c->head.len);
        error = c->status == -1 ? &e_stream : &e_status;
    } else if (c->disorder) {
        error = &e_order;
    } else if (streaming_body) {
        if (!c->done || (n_expect >= 0 && c->tokens != n_expect)) error = &e_short;
    } else if (!c->tokens) error = &e_short;    /* the reply's text must have come through */
    finish(c, error);
}

/* Feed received bytes through the HTTP framing. false when the connection is finished with. */
static bool feed(Conn *c, const char *p, size_t n) {
    int64_t now = now_us();
    while (n) {
        size_t k = 0;
        const char *nl;
        switch (c->state) {
        case HEAD: {
            size_t had = c->head.len;
            buf_add(&c->head, p, n);
            char *end = strstr(c->head.p, "\r\n\r\n");
            if (!end) return true;
            k = end + 4 - c->head.p - had;
            end[4] = 0; c->head.len = end + 4 - c->head.p;
            c->status = atoi(c->head.p + 9);
            const char *v = header(c->head.p, "connection:");
            c->close_after = v && !strncasecmp(v, "close", 5);
            v = header(c->head.p, "transfer-encoding:");
            if (v && !strncasecmp(v, "chunked", 7)) { c->state = SIZE; c->left = 0; }
            else {
                v = header(c->head.p, "content-length:");
                c->state = BODY; c->left = v ? atoll(v) : INT64_MAX;    /* none: until close */
                if (!v) c->close_after = true;
                if (c->left == 0) { complete(c, now); return c->fd >= 0; }
            }
            break;
        }
        case BODY: case DATA:
            k = n < (uint64_t)c->left ? n : (size_t)c->left;
            payload(c, p, k, now);
            c->left -= k;
            if (!c->left) {
                if (c->state == DATA) { c->state = CRLF; c->left = 2; }
                else { complete(c, now); return c->fd >= 0; }
            }
            break;
        case SIZE:      /* hex digits up to \n, any extension ignored */
            for (; k < n && p[k] != '\n'; k++) {
                char ch = p[k] | 32;
                if (ch >= '0' && ch <= '9') c->left = c->left * 16 + ch - '0';
                else if (ch >= 'a' && ch <= 'f') c->left = c->left * 16 + ch - 'a' + 10;
            }
            if (k == n) break;
            k++;
            if (c->left) c->state = DATA;
            else { c->state = TRAILER; c->left = 2; }
            break;
        case CRLF: case TRAILER:        /* no trailers are expected */
            k = n < (uint64_t)c->left ? n : (size_t)c->left;
            if (!(c->left -= k)) {
                if (c->state == TRAILER) { complete(c, now); return c->fd >= 0; }
                c->state = SIZE; c->left = 0;
            }
            break;
        default: (void)nl; return false;
        }
        p += k; n -= k;
    }
    return true;
}

static void on_event(Conn *c, uint32_t events) {
    static char b[1 << 18];
    if (c->state == CONNECTING) {
        int err = 0;
        socklen_t len = sizeof err;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len);
        if (err) { finish(c, &e_connect); return; }
        if (!(events & EPOLLOUT)) return;
        arm(c, EPOLLIN);
        send_request(c);
        return;
    }
    ssize_t n = read(c->fd, b, sizeof b);
    if (n > 0) {
        if (c->state == IDLE) drop(c);
        else feed(c, b, n);
    } else if (n == 0 || errno != EAGAIN) {
        if (c->state == IDLE) drop(c);          /* server closed a kept-alive connection */
        else if (n == 0 && c->state == BODY && c->left > INT64_MAX / 2) complete(c, now_us());
        else if (c->state == HEAD && !c->head.len && !c->fresh) {   /* lost the keep-alive race: retry */
            drop(c); n_active--; n_started--;
            begin(c, c->t0);
        } else finish(c, &e_reset);
    }
}

static Conn *take(void) {
    Conn *c = idle;
    if (c) { idle = c->next_idle; return c; }
    if (n_used == n_conns) return NULL;
    c = &conns[n_used++];
    c->fd = -1;
    return c;
}

int main(int argc, char **argv) {
    double rate = 0, duration = 5, ramp = 0, timeout = 10;
    int64_t max_requests = INT64_MAX;
    char b[512];
    Buf extra = {0};
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *o = argv[i], *v = argv[i + 1];
        if (!strcmp(o, "--host")) host = v;
        else if (!strcmp(o, "--port")) port = atoi(v);
        else if (!strcmp(o, "--path")) path = v;
        else if (!strcmp(o, "--body")) body = v;
        else if (!strcmp(o, "--header")) { buf_add(&extra, v, strlen(v)); buf_add(&extra, "\r\n", 2); }
        else if (!strcmp(o, "--protocol")) for (size_t n = 0; n < sizeof names / sizeof *names; n++) { if (!strcmp(v, names[n])) protocol = n; }
        else if (!strcmp(o, "--vary")) vary_by_conn = !strcmp(v, "conn");
        else if (!strcmp(o, "--conns")) n_conns = atoi(v);
        else if (!strcmp(o, "--rate")) rate = atof(v);
        else if (!strcmp(o, "--duration")) duration = atof(v);
        else if (!strcmp(o, "--requests")) max_requests = atoll(v);
        else if (!strcmp(o, "--ramp")) ramp = atof(v);
        else if (!strcmp(o, "--expect")) n_expect = atoi(v);
        else if (!strcmp(o, "--timeout")) timeout = atof(v);
        else { fprintf(stderr, "load: unknown option %s\n", o); return 2; }
    }
    if (!port || (!n_conns && rate <= 0)) { fprintf(stderr, "load: --port and one of --conns, --rate\n"); return 2; }
    streaming_body = protocol == NDJSON || protocol == GEMINI || strstr(body, "\"stream\":true") || strstr(body, "\"stream\": true");
    bool open_loop = rate > 0;
    int closed = n_conns;
    if (open_loop) n_conns = 20000;
    conns = calloc(n_conns, sizeof *conns);
    int n = snprintf(b, sizeof b, "POST %s HTTP/1.1\r\nHost: %s:%d\r\nContent-Type: application/json\r\n"
                     "Accept: %s\r\nContent-Length: %zu\r\n", path, host, port,
                     protocol == NDJSON ? "application/x-ndjson" : streaming_body ? "text/event-stream" : "application/json", strlen(body));
    buf_add(&request, b, n);
    if (extra.len) buf_add(&request, extra.p, extra.len);
    buf_add(&request, "\r\n", 2);
    const char *run = strchr(body, '#');
    if (run) { vary_at = request.len + (run - body); vary_len = strspn(run, "#"); }
    buf_add(&request, body, strlen(body));

    signal(SIGPIPE, SIG_IGN);
    tune_process();
    ep = epoll_create1(0);
    struct epoll_event ev[256];
    t_begin = now_us();
    int64_t t_stop = t_begin + (int64_t)(duration * 1e6), t_kill = t_stop + (int64_t)(timeout * 1e6);
    double step = open_loop ? 1e6 / rate : closed > 1 ? ramp * 1e6 / closed : 0;
    int64_t born = 0;       /* arrivals (open loop) or connections begun (closed loop) */
    for (;;) {
        int64_t t = now_us();
        bool more = t < t_stop && n_started < max_requests;
        int64_t due = t_begin + (int64_t)(born * step);
        while (more && (open_loop || born < closed) && due <= t) {
            Conn *c = take();
            if (!c) { e_connect++; }
            else { if (open_loop) hist_add(&h_late, t - due); begin(c, open_loop ? due : now_us()); }
            due = t_begin + (int64_t)(++born * step);
            more = n_started < max_requests;
        }
        if (!open_loop && born >= closed)
            for (Conn *c; more && idle; more = n_started < max_requests) { c = take(); begin(c, now_us()); }
        if (!more && !n_active) break;
        if (t >= t_kill) { e_timeout = n_active; break; }
        bool waiting = more && (open_loop || born < closed);
        int64_t until = more ? t_stop : t_kill;
        if (waiting && due < until) until = due;
        int k = wait_events(ep, ev, 256, until);
        for (int i = 0; i < k; i++) {
            Conn *c = ev[i].data.ptr;
            if (c->fd >= 0) on_event(c, ev[i].events);
        }
    }
    t_end = now_us();
    double secs = ((t_ok_last ? t_ok_last : t_end) - t_begin) / 1e6;
    struct rusage ru;
    getrusage(RUSAGE_SELF, &ru);
    int64_t errors = e_connect + e_status + e_reset + e_short + e_stream + e_order + e_timeout;
    printf("{\"seconds\":%.4f,\"requests\":%" PRId64 ",\"ok\":%" PRId64 ",\"errors\":%" PRId64 ",\"rps\":%.1f,\"tokens\":%" PRId64
           ",\"lines\":%" PRId64 ",\"tokens_per_s\":%.1f,\"bytes\":%" PRId64 ",\"connects\":%" PRId64 ",\"peak_active\":%" PRId64
           ",\"cpu_s\":%.3f,", secs, n_started, n_ok, errors, n_ok / secs, n_tokens, n_lines, n_tokens / secs, n_bytes,
           n_connects, n_peak, ru.ru_utime.tv_sec + ru.ru_stime.tv_sec + (ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6);
    printf("\"error_kinds\":{\"connect\":%" PRId64 ",\"status\":%" PRId64 ",\"reset\":%" PRId64 ",\"short\":%" PRId64
           ",\"stream\":%" PRId64 ",\"order\":%" PRId64 ",\"timeout\":%" PRId64 "},", e_connect, e_status, e_reset, e_short, e_stream, e_order, e_timeout);
    hist_print("ttft", &h_ttft); putchar(',');
    hist_print("gap", &h_gap); putchar(',');
    hist_print("lag", &h_lag); putchar(',');
    hist_print("total", &h_total); putchar(',');
    hist_print("late", &h_late);
    printf(",\"sample\":\"");
    for (char *p = sample; *p; p++)
        if (*p == '"' || *p == '\\') printf("\\%c", *p);
        else putchar((unsigned char)*p < 32 ? ' ' : *p);
    printf("\"}\n");
    return errors ? 1 : 0;
}
