/* mock: a fake upstream. One thread, epoll, one write() per event.
 *
 *   mock --port 9100 [--host 127.0.0.1] [--tokens 64] [--gap-us 0] [--ttft-us 0]
 *
 * The path picks the dialect: /v1/messages is Anthropic's, /api/chat Ollama's, /v1/responses OpenAI's Responses,
 * …:streamGenerateContent Gemini's, /v2/chat Cohere's, …/converse-stream Bedrock's (all of these only stream),
 * anything else OpenAI's chat completions.
 * A request may override the defaults with words in its body, which every gateway
 * passes through: "tokens=64 gap_us=20000 ttft_us=0". Each content delta is
 * " w<n>@<µs>": its number in the stream, from 1, and the CLOCK_MONOTONIC time just before
 * its write(), so that the client on the same machine can tell how long the event was
 * under way, and whether any was lost, doubled or overtaken.
 * GET /stats reports what was seen; GET /v1/models, /health etc. satisfy probes.
 */
#include "common.h"

typedef enum { OPENAI, ANTHROPIC, OLLAMA, RESPONSES, GEMINI, COHERE, BEDROCK } Dialect;
typedef struct Conn {
    int fd, gen;            /* gen: bumped per stream, invalidates old timers */
    bool streaming, usage, blocked, ready;
    Dialect dialect;
    int tokens, sent;
    int64_t gap, start;
    char id[40];
    Buf in, out;
} Conn;

typedef struct { int64_t due; Conn *c; int gen; } Timer;

static Timer *heap; static int heap_n, heap_cap;
static Conn **ready; static int ready_n, ready_cap;    /* unpaced streams: round robin */
static int ep, def_tokens = 64;
static int64_t def_gap, def_ttft;
static int64_t n_conns, n_open, n_requests, n_streams, n_active, n_done, n_aborted, n_events, n_peak;

static void heap_push(Timer t) {
    if (heap_n == heap_cap) heap = realloc(heap, (heap_cap = heap_cap * 2 + 64) * sizeof *heap);
    int i = heap_n++;
    for (; i && heap[(i - 1) / 2].due > t.due; i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
    heap[i] = t;
}
static Timer heap_pop(void) {
    Timer top = heap[0], t = heap[--heap_n];
    int i = 0, k;
    while ((k = 2 * i + 1) < heap_n) {
        if (k + 1 < heap_n && heap[k + 1].due < heap[k].due) k++;
        if (heap[k].due >= t.due) break;
        heap[i] = heap[k]; i = k;
    }
    heap[i] = t;
    return top;
}
static void make_ready(Conn *c) {
    if (c->ready) return;
    if (ready_n == ready_cap) ready = realloc(ready, (ready_cap = ready_cap * 2 + 64) * sizeof *ready);
    c->ready = true;
    ready[ready_n++] = c;
}

static void end_stream(Conn *c, bool ok) {
    if (!c->streaming) return;
    c->streaming = false; c->gen++; n_active--;
    if (ok) n_done++; else n_aborted++;
}
/* Conns are recycled, never freed: stale timers and ready entries stay valid pointers. */
static Conn *spare[65536]; static int spare_n;
static void conn_close(Conn *c) {
    end_stream(c, false);
    close(c->fd); c->fd = -1; c->gen++; n_open--;
    if (spare_n < 65536) spare[spare_n++] = c;
}

/* false if the peer is gone */
static bool flush(Conn *c) {
    while (c->out.off < c->out.len) {
        ssize_t n = write(c->fd, c->out.p + c->out.off, c->out.len - c->out.off);
        if (n < 0) {
            if (errno != EAGAIN) return false;
            if (!c->blocked) {
                c->blocked = true;
                epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &(struct epoll_event){.events = EPOLLIN | EPOLLOUT, .data.ptr = c});
            }
            return true;
        }
        c->out.off += n;
    }
    buf_reset(&c->out);
    if (c->blocked) {
        c->blocked = false;
        epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &(struct epoll_event){.events = EPOLLIN, .data.ptr = c});
    }
    return true;
}

static void add_chunk(Conn *c, const char *body, int n) {    /* one HTTP/1.1 chunk */
    char size[16];
    buf_add(&c->out, size, snprintf(size, sizeof size, "%x\r\n", n));
    buf_add(&c->out, body, n);
    buf_add(&c->out, "\r\n", 2);
}

#define CHUNK "data: {\"id\":\"%s\",\"object\":\"chat.completion.chunk\",\"created\":1764000000,"  \
              "\"model\":\"gpt-4o-mini-2024-07-18\",\"service_tier\":\"default\","                  \
              "\"system_fingerprint\":\"fp_50cad350e4\",\"choices\":["
#define EVENT(type) "event: " type "\ndata: {\"type\":\"" type "\","
#define LINE "{\"model\":\"gpt-4o-mini\",\"created_at\":\"2025-11-24T16:00:00.000000Z\",\"message\":{\"role\":\"assistant\","
#define PART "{\"candidates\":[{\"content\":{\"role\":\"model\",\"parts\":[{\"text\":\""
enum { B = 640 };   /* bytes that the longest event may have */

/* One message of AWS's event stream: lengths, headers, a JSON payload, and a CRC-32 of both. */
static uint32_t crc32_of(const unsigned char *p, size_t n) {
    static uint32_t table[256];
    if (!table[1])
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t c = i;
            for (int k = 0; k < 8; k++) c = c & 1 ? 0xEDB88320u ^ c >> 1 : c >> 1;
            table[i] = c;
        }
    uint32_t c = ~0u;
    while (n--) c = table[(c ^ *p++) & 255] ^ c >> 8;
    return ~c;
}
static char *big_endian(char *b, uint32_t v) {
    for (int shift = 24; shift >= 0; shift -= 8) *b++ = (char)(v >> shift);
    return b;
}
static char *aws_header(char *b, const char *name, const char *value) {
    *b++ = (char)strlen(name);
    b = stpcpy(b, name);
    *b++ = 7; *b++ = 0; *b++ = (char)strlen(value);
    return stpcpy(b, value);
}
static int aws(char *b, const char *type, const char *payload) {
    char *h = aws_header(b + 12, ":event-type", type);
    h = aws_header(h, ":content-type", "application/json");
    h = aws_header(h, ":message-type", "event");
    uint32_t headers = h - b - 12;
    h = stpcpy(h, payload);
    big_endian(b, h - b + 4);
    big_endian(b + 4, headers);
    big_endian(b + 8, crc32_of((unsigned char *)b, 8));
    h = big_endian(h, crc32_of((unsigned char *)b, h - b));
    return h - b;
}

/* Each writes one event into b and returns its length; 0 = this dialect has none here. */
static int opening(const Conn *c, char *b) {
    switch (c->dialect) {
    case OPENAI:
        return snprintf(b, B, CHUNK "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\","
                        "\"refusal\":null},\"logprobs\":null,\"finish_reason\":null}]}\n\n", c->id);
    case ANTHROPIC:
        return snprintf(b, B, EVENT("message_start") "\"message\":{\"id\":\"%s\",\"type\":\"message\",\"role\":\"assistant\","
                        "\"content\":[],\"model\":\"claude-haiku-4-5\",\"stop_reason\":null,\"stop_sequence\":null,"
                        "\"usage\":{\"input_tokens\":12,\"output_tokens\":1}}}\n\n"
                        EVENT("content_block_start") "\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n", c->id);
    case RESPONSES:
        return snprintf(b, B, EVENT("response.created") "\"sequence_number\":0,\"response\":{\"id\":\"resp_1\",\"model\":\"gpt-4o-mini\","
                        "\"status\":\"in_progress\",\"output\":[]}}\n\n"
                        EVENT("response.output_item.added") "\"sequence_number\":1,\"output_index\":0,\"item\":{\"id\":\"msg_1\","
                        "\"type\":\"message\",\"status\":\"in_progress\",\"content\":[],\"role\":\"assistant\"}}\n\n");
    case COHERE:
        return snprintf(b, B, EVENT("message-start") "\"id\":\"%s\",\"delta\":{\"message\":{\"role\":\"assistant\",\"content\":[]}}}\n\n"
                        EVENT("content-start") "\"index\":0,\"delta\":{\"message\":{\"content\":{\"type\":\"text\",\"text\":\"\"}}}}\n\n", c->id);
    case BEDROCK:
        return aws(b, "messageStart", "{\"role\":\"assistant\"}");
    default:
        return 0;
    }
}
static int token(const Conn *c, int i, char *b) {
    switch (c->dialect) {
    case OPENAI:
        return snprintf(b, B, CHUNK "{\"index\":0,\"delta\":{\"content\":\" w%d@%" PRId64 "\"},"
                        "\"logprobs\":null,\"finish_reason\":null}]}\n\n", c->id, i, now_us());
    case ANTHROPIC:
        return snprintf(b, B, EVENT("content_block_delta") "\"index\":0,\"delta\":{\"type\":\"text_delta\","
                        "\"text\":\" w%d@%" PRId64 "\"}}\n\n", i, now_us());
    case RESPONSES:
        return snprintf(b, B, EVENT("response.output_text.delta") "\"sequence_number\":%d,\"item_id\":\"msg_1\",\"output_index\":0,"
                        "\"content_index\":0,\"delta\":\" w%d@%" PRId64 "\",\"logprobs\":[]}\n\n", i + 1, i, now_us());
    case GEMINI:
        return snprintf(b, B, "data: " PART " w%d@%" PRId64 "\"}]},\"index\":0}],\"modelVersion\":\"gpt-4o-mini\","
                        "\"responseId\":\"r\"}\r\n\r\n", i, now_us());
    case COHERE:
        return snprintf(b, B, EVENT("content-delta") "\"index\":0,\"delta\":{\"message\":{\"content\":{\"text\":\" w%d@%" PRId64
                        "\"}}}}\n\n", i, now_us());
    case BEDROCK: {
        char payload[128];
        snprintf(payload, sizeof payload, "{\"contentBlockIndex\":0,\"delta\":{\"text\":\" w%d@%" PRId64 "\"}}", i, now_us());
        return aws(b, "contentBlockDelta", payload);
    }
    default:
        return snprintf(b, B, LINE "\"content\":\" w%d@%" PRId64 "\"},\"done\":false}\n", i, now_us());
    }
}
static void closing(Conn *c) {
    char b[B];
    switch (c->dialect) {
    case OPENAI:
        add_chunk(c, b, snprintf(b, B, CHUNK "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}]}\n\n", c->id));
        if (c->usage)
            add_chunk(c, b, snprintf(b, B, CHUNK "],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":%d,"
                                     "\"total_tokens\":%d}}\n\n", c->id, c->tokens, c->tokens + 12));
        add_chunk(c, "data: [DONE]\n\n", 14);
        break;
    case ANTHROPIC:
        add_chunk(c, b, snprintf(b, B, EVENT("content_block_stop") "\"index\":0}\n\n"
                                 EVENT("message_delta") "\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},"
                                 "\"usage\":{\"output_tokens\":%d}}\n\n" "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n", c->tokens));
        break;
    case RESPONSES:
        add_chunk(c, b, snprintf(b, B, EVENT("response.completed") "\"sequence_number\":%d,\"response\":{\"id\":\"resp_1\","
                                 "\"model\":\"gpt-4o-mini\",\"status\":\"completed\",\"output\":[],\"usage\":{\"input_tokens\":12,"
                                 "\"output_tokens\":%d,\"total_tokens\":%d}}}\n\n", c->tokens + 2, c->tokens, c->tokens + 12));
        break;
    case GEMINI:
        add_chunk(c, b, snprintf(b, B, "data: " PART "\"}]},\"finishReason\":\"STOP\",\"index\":0}],\"usageMetadata\":"
                                 "{\"promptTokenCount\":12,\"candidatesTokenCount\":%d,\"totalTokenCount\":%d},"
                                 "\"modelVersion\":\"gpt-4o-mini\",\"responseId\":\"r\"}\r\n\r\n", c->tokens, c->tokens + 12));
        break;
    case COHERE:
        add_chunk(c, b, snprintf(b, B, EVENT("content-end") "\"index\":0}\n\n" EVENT("message-end") "\"delta\":{\"finish_reason\":"
                                 "\"COMPLETE\",\"usage\":{\"tokens\":{\"input_tokens\":12,\"output_tokens\":%d}}}}\n\n", c->tokens));
        break;
    case BEDROCK: {
        char payload[128];
        snprintf(payload, sizeof payload, "{\"usage\":{\"inputTokens\":12,\"outputTokens\":%d,\"totalTokens\":%d}}", c->tokens, c->tokens + 12);
        add_chunk(c, b, aws(b, "messageStop", "{\"stopReason\":\"end_turn\"}"));
        add_chunk(c, b, aws(b, "metadata", payload));
        break;
    }
    default:
        add_chunk(c, b, snprintf(b, B, LINE "\"content\":\"\"},\"done\":true,\"done_reason\":\"stop\",\"total_duration\":1000000,"
                                 "\"prompt_eval_count\":12,\"eval_count\":%d}\n", c->tokens));
    }
    buf_add(&c->out, "0\r\n\r\n", 5);
}

/* Write the next event of a stream: opening, tokens, and all that closes it at once. */
static bool step(Conn *c) {
    char b[B];
    int i = c->sent++;
    if (i > c->tokens) {
        closing(c);
        end_stream(c, true);
        return flush(c);
    }
    int n = i ? token(c, i, b) : opening(c, b);
    if (!n) return true;
    n_events++;
    add_chunk(c, b, n);
    return flush(c);
}

static void schedule(Conn *c) {
    if (!c->streaming) return;
    if (c->gap == 0 && c->sent > 0) make_ready(c);
    else {      /* role chunk and first token leave together, at start */
        int64_t due = c->start + (c->sent > 1 ? (c->sent - 1) * c->gap : 0);
        heap_push((Timer){due, c, c->gen});
    }
}

static int64_t word(const char *body, const char *key, int64_t dflt) {
    const char *p = strstr(body, key);
    return p ? atoll(p + strlen(key)) : dflt;
}

static void reply(Conn *c, const char *status, const char *body, size_t n) {
    char h[256];
    buf_add(&c->out, h, snprintf(h, sizeof h, "HTTP/1.1 %s\r\nContent-Type: application/json\r\n"
            "x-request-id: req_%016" PRIx64 "\r\nContent-Length: %zu\r\n\r\n", status, (uint64_t)n_requests * 0x9E3779B97F4A7C15u, n));
    buf_add(&c->out, body, n);
}

static Dialect dialect_of(const char *head) {
    static const struct { const char *path; Dialect dialect; } known[] = {
        {"POST /v1/messages", ANTHROPIC}, {"POST /api/chat", OLLAMA}, {"POST /v1/responses", RESPONSES},
        {"POST /v1beta/models/", GEMINI}, {"POST /v2/chat", COHERE}, {"POST /model/", BEDROCK},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strncmp(head, known[i].path, strlen(known[i].path))) return known[i].dialect;
    return OPENAI;
}

static void on_request(Conn *c, char *head, char *body) {
    char b[1024];
    n_requests++;
    c->dialect = dialect_of(head);
    if (strncmp(head, "POST", 4)) {
        int n;
        if (!strncmp(head, "GET /stats", 10))
            n = snprintf(b, sizeof b, "{\"connections\":%" PRId64 ",\"open\":%" PRId64 ",\"requests\":%" PRId64 ",\"streams\":%" PRId64
                ",\"active\":%" PRId64 ",\"peak\":%" PRId64 ",\"done\":%" PRId64 ",\"aborted\":%" PRId64 ",\"events\":%" PRId64 "}",
                n_conns, n_open, n_requests, n_streams, n_active, n_peak, n_done, n_aborted, n_events);
        else if (strstr(head, "models"))
            n = snprintf(b, sizeof b, "{\"object\":\"list\",\"data\":[{\"id\":\"gpt-4o-mini\",\"object\":\"model\","
                "\"created\":1721172741,\"owned_by\":\"openai\"}]}");
        else  /* /health, and what inference routers ask their workers */
            n = snprintf(b, sizeof b, "{\"status\":\"ok\",\"version\":\"0.5.0\",\"model_path\":\"gpt-4o-mini\","
                "\"served_model_name\":\"gpt-4o-mini\",\"is_generation\":true}");
        reply(c, "200 OK", b, n);
        return;
    }
    c->tokens = word(body, "tokens=", def_tokens);
    c->gap = word(body, "gap_us=", def_gap);
    c->usage = strstr(body, "\"include_usage\"") != NULL;
    uint64_t r = (uint64_t)n_requests * 0x9E3779B97F4A7C15u;
    snprintf(c->id, sizeof c->id, "chatcmpl-%029" PRIx64, r);
    if (c->dialect == OPENAI && !strstr(body, "\"stream\":true") && !strstr(body, "\"stream\": true")) {
        int n = snprintf(b, sizeof b, "{\"id\":\"%s\",\"object\":\"chat.completion\",\"created\":1764000000,"
            "\"model\":\"gpt-4o-mini-2024-07-18\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
            "\"content\":\"Hello! How can I help you today? w@%" PRId64 "\",\"refusal\":null,\"annotations\":[]},"
            "\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":9,"
            "\"total_tokens\":21,\"prompt_tokens_details\":{\"cached_tokens\":0,\"audio_tokens\":0}},"
            "\"service_tier\":\"default\",\"system_fingerprint\":\"fp_50cad350e4\"}", c->id, now_us());
        reply(c, "200 OK", b, n);
        return;
    }
    int n = snprintf(b, sizeof b, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nCache-Control: no-cache\r\n"
                     "Transfer-Encoding: chunked\r\nx-request-id: req_0123456789abcdef\r\n\r\n",
                     c->dialect == OLLAMA ? "application/x-ndjson"
                         : c->dialect == BEDROCK ? "application/vnd.amazon.eventstream" : "text/event-stream; charset=utf-8");
    buf_add(&c->out, b, n);     /* leaves with the first event */
    n_streams++; n_active++;
    if (n_active > n_peak) n_peak = n_active;
    c->streaming = true; c->sent = 0; c->gen++;
    c->start = now_us() + word(body, "ttft_us=", def_ttft);
    schedule(c);
}

/* Take one whole request off c->in; false when more bytes are needed. */
static bool parse(Conn *c) {
    char *end = c->in.len ? strstr(c->in.p, "\r\n\r\n") : NULL;
    if (!end) return false;
    char *body = end + 4;
    size_t have = c->in.p + c->in.len - body, need = 0;
    const char *v;
    if (c->in.len < 5) return false;
    char keep = *body; *body = 0;
    v = header(c->in.p, "transfer-encoding:");
    bool chunked = v && !strncasecmp(v, "chunked", 7);
    if ((v = header(c->in.p, "content-length:"))) need = strtoul(v, NULL, 10);
    *body = keep;
    if (chunked) {      /* good enough for a mock: the body is searched, not decoded */
        char *last = strncmp(body, "0\r\n\r\n", 5) ? strstr(body, "\r\n0\r\n\r\n") : body - 2;
        if (!last) return false;
        need = last + 7 - body;
    } else if (have < need) return false;
    keep = body[need]; body[need] = 0;
    on_request(c, c->in.p, body);
    body[need] = keep;
    size_t used = body + need - c->in.p;
    memmove(c->in.p, c->in.p + used, c->in.len - used + 1);
    c->in.len -= used;
    return true;
}

static void on_readable(Conn *c) {
    char b[65536];
    for (;;) {
        ssize_t n = read(c->fd, b, sizeof b);
        if (n == 0 || (n < 0 && errno != EAGAIN)) { conn_close(c); return; }
        if (n < 0) break;
        buf_add(&c->in, b, n);
        if (n < (ssize_t)sizeof b) break;
    }
    while (!c->streaming && parse(c)) ;
    if (!c->streaming && !flush(c)) conn_close(c);
}

static volatile sig_atomic_t stop;
static void on_signal(int s) { (void)s; stop = 1; }

int main(int argc, char **argv) {
    int port = 9100;
    const char *host = "127.0.0.1";
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--port")) port = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--host")) host = argv[i + 1];
        else if (!strcmp(argv[i], "--tokens")) def_tokens = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--gap-us")) def_gap = atoll(argv[i + 1]);
        else if (!strcmp(argv[i], "--ttft-us")) def_ttft = atoll(argv[i + 1]);
        else { fprintf(stderr, "mock: unknown option %s\n", argv[i]); return 2; }
    }
    signal(SIGPIPE, SIG_IGN); signal(SIGTERM, on_signal); signal(SIGINT, on_signal);
    tune_process();
    int one = 1, ls = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(ls, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, host, &a.sin_addr);
    if (bind(ls, (void *)&a, sizeof a) || listen(ls, 4096)) die("mock: bind");
    ep = epoll_create1(0);
    epoll_ctl(ep, EPOLL_CTL_ADD, ls, &(struct epoll_event){.events = EPOLLIN, .data.ptr = NULL});
    struct epoll_event ev[256];
    while (!stop) {
        int64_t until = ready_n ? 0 : heap_n ? heap[0].due : -1;
        int n = wait_events(ep, ev, 256, until);
        for (int i = 0; i < n; i++) {
            Conn *c = ev[i].data.ptr;
            if (!c) {
                for (int fd; (fd = accept4(ls, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
                    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    c = spare_n ? spare[--spare_n] : calloc(1, sizeof *c);
                    buf_reset(&c->in); buf_reset(&c->out);
                    c->fd = fd; c->blocked = false; n_conns++; n_open++;
                    epoll_ctl(ep, EPOLL_CTL_ADD, fd, &(struct epoll_event){.events = EPOLLIN, .data.ptr = c});
                }
                continue;
            }
            if (c->fd < 0) continue;
            if (ev[i].events & EPOLLOUT) {
                if (!flush(c)) { conn_close(c); continue; }
                if (!c->blocked) schedule(c);
            }
            if (ev[i].events & ~EPOLLOUT) on_readable(c);
        }
        int64_t t = now_us();
        while (heap_n && heap[0].due <= t) {
            Timer tm = heap_pop();
            Conn *c = tm.c;
            if (c->gen != tm.gen || !c->streaming || c->blocked) continue;
            bool ok = step(c);
            if (ok && c->sent == 1) ok = step(c);
            if (!ok) conn_close(c);
            else if (!c->blocked) schedule(c);
        }
        int m = ready_n;        /* unpaced: one event per stream, then look at the sockets again */
        ready_n = 0;
        for (int i = 0; i < m; i++) {
            Conn *c = ready[i];
            c->ready = false;
            if (c->fd < 0 || !c->streaming || c->blocked) continue;
            if (!step(c)) conn_close(c);
            else if (c->streaming && !c->blocked) make_ready(c);    /* slot i or lower: safe */
        }
    }
    return 0;
}
