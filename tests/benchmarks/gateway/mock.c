// Cheap stand-in for a vLLM OpenAI server (epoll, one thread, prebuilt bytes).
//   cc -O2 -o mock mock.c && ./mock PORT [chunk_gap_us=10000] [answer_delay_us=0] [aligned=1]
// POST */chat/completions -> ~1.5 KB JSON with usage, or (body has "stream":true) an SSE stream of
// 1 role chunk + 64 content chunks of ~230 B + finish + usage + [DONE]. With gap>0 every event is
// one write() (aligned=1: all streams step on the same clock tick, as vLLM's engine does); gap=0
// sends the whole stream at once. A body that asks for "continuous_usage_stats":true gets usage in
// each content chunk, as vLLM gives it. Each content chunk carries "@<CLOCK_MONOTONIC ns, 19
// digits>" so that a client on this host can measure one-way delay.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define NCHUNK 64
typedef struct {
  int fd, step, heap;
  size_t len, cap;
  char* buf;
  int64_t due;
  int streaming, running_usage;
} conn;
static int ep;
static int64_t gap = 10000000, delay_ns = 0;
static int aligned = 1;
static conn* heap[65536];
static int nheap;
static char plain[8192], models[1024], ok[256], role[1024], content[1024], counted[1024],
    finish[1024], usage[1024], all[65536];
static size_t lplain, lmodels, lok, lrole, lcontent, lcounted, lfinish, lusage, lall, tsoff,
    tsoff_counted;
static uint64_t n_plain, n_stream, n_other;

static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}
static void swp(int a, int b) {
  conn* t = heap[a];
  heap[a] = heap[b];
  heap[b] = t;
  heap[a]->heap = a;
  heap[b]->heap = b;
}
static void up(int i) {
  while (i && heap[(i - 1) / 2]->due > heap[i]->due) {
    swp(i, (i - 1) / 2);
    i = (i - 1) / 2;
  }
}
static void down(int i) {
  for (;;) {
    int l = 2 * i + 1, m = i;
    if (l < nheap && heap[l]->due < heap[m]->due) m = l;
    if (l + 1 < nheap && heap[l + 1]->due < heap[m]->due) m = l + 1;
    if (m == i) return;
    swp(i, m);
    i = m;
  }
}
static void hpush(conn* c) {
  c->heap = nheap;
  heap[nheap++] = c;
  up(c->heap);
}
static void hdel(conn* c) {
  int i = c->heap;
  if (i < 0) return;
  nheap--;
  if (i != nheap) {
    heap[i] = heap[nheap];
    heap[i]->heap = i;
    up(i);
    down(i);
  }
  c->heap = -1;
}
static void drop(conn* c) {
  hdel(c);
  close(c->fd);
  free(c->buf);
  free(c);
}
static int put(conn* c, const char* b, size_t n) {
  ssize_t r = write(c->fd, b, n);
  return r == (ssize_t)n ? 0 : -1;
}  // answers fit the socket buffer

static size_t chunked(char* out, const char* payload) {
  return sprintf(out, "%zx\r\n%s\r\n", strlen(payload), payload);
}
static void stamp(char* p, int64_t t) {
  for (int i = 18; i >= 0; i--) {
    p[i] = '0' + t % 10;
    t /= 10;
  }
}
#define CH                                                                                      \
  "{\"id\":\"chatcmpl-8f3c2a1b9d7e4f60a5b4c3d2e1f00718\",\"object\":\"chat.completion.chunk\"," \
  "\"created\":1790000000,\"model\":\"base-8b\",\"choices\":["
static void build(void) {
  char body[6000], txt[1200];
  const char* w =
      "The refund for your order was approved this morning and should reach your account in three "
      "working days. ";
  txt[0] = 0;
  while (strlen(txt) < 880) strcat(txt, w);
  sprintf(body,
          "{\"id\":\"chatcmpl-8f3c2a1b9d7e4f60a5b4c3d2e1f00718\",\"object\":\"chat.completion\","
          "\"created\":1790000000,\"model\":\"base-8b\",\"choices\":[{\"index\":0,\"message\":{"
          "\"role\":\"assistant\",\"content\":\"%s\",\"refusal\":null,\"annotations\":null,"
          "\"audio\":null,\"function_call\":null,\"tool_calls\":[],\"reasoning\":null},"
          "\"logprobs\":null,\"finish_reason\":\"stop\",\"stop_reason\":null,\"token_ids\":null}],"
          "\"service_tier\":null,\"system_fingerprint\":null,\"usage\":{\"prompt_tokens\":212,"
          "\"total_tokens\":391,\"completion_tokens\":179,\"prompt_tokens_details\":null},\"prompt_"
          "logprobs\":null,\"prompt_token_ids\":null,\"kv_transfer_params\":null}",
          txt);
#define HDR "HTTP/1.1 200 OK\r\ndate: Tue, 01 Sep 2026 10:00:00 GMT\r\nserver: uvicorn\r\n"
  lplain = sprintf(plain, HDR "content-length: %zu\r\ncontent-type: application/json\r\n\r\n%s",
                   strlen(body), body);
  const char* m =
      "{\"object\":\"list\",\"data\":[{\"id\":\"base-8b\",\"object\":\"model\",\"created\":"
      "1790000000,\"owned_by\":\"vllm\",\"root\":\"base-8b\",\"parent\":null,\"max_model_len\":"
      "32768}],\"model_path\":\"base-8b\",\"is_generation\":true}";
  lmodels = sprintf(models, HDR "content-length: %zu\r\ncontent-type: application/json\r\n\r\n%s",
                    strlen(m), m);
  lok = sprintf(ok, HDR "content-length: 0\r\n\r\n");
  char ev[1024];
  sprintf(ev, "data: " CH
              "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
              "\"finish_reason\":null}]}\n\n");
  lrole = sprintf(
      role,
      HDR "content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n");
  lrole += chunked(role + lrole, ev);
  sprintf(ev, "data: " CH
              "{\"index\":0,\"delta\":{\"content\":\"@0000000000000000000\"},\"logprobs\":null,"
              "\"finish_reason\":null,\"token_ids\":null}]}\n\n");
  lcontent = chunked(content, ev);
  tsoff = strchr(content, '@') + 1 - content;
  sprintf(ev, "data: " CH
              "{\"index\":0,\"delta\":{\"content\":\"@0000000000000000000\"},\"logprobs\":null,"
              "\"finish_reason\":null,\"token_ids\":null}],\"usage\":{\"prompt_tokens\":212,"
              "\"total_tokens\":244,\"completion_tokens\":32}}\n\n");
  lcounted = chunked(counted, ev);
  tsoff_counted = strchr(counted, '@') + 1 - counted;
  sprintf(ev, "data: " CH
              "{\"index\":0,\"delta\":{\"content\":\"\"},\"logprobs\":null,\"finish_reason\":"
              "\"stop\",\"stop_reason\":null,\"token_ids\":null}]}\n\n");
  lfinish = chunked(finish, ev);
  sprintf(ev,
          "data: " CH
          "],\"usage\":{\"prompt_tokens\":212,\"total_tokens\":276,\"completion_tokens\":64}}\n\n");
  lusage = chunked(usage, ev);
  lusage += chunked(usage + lusage, "data: [DONE]\n\n");
  lusage += sprintf(usage + lusage, "0\r\n\r\n");
#define CAT(b, n) memcpy(all + lall, b, n), lall += n
  CAT(role, lrole);
  for (int i = 0; i < NCHUNK; i++) CAT(content, lcontent);
  CAT(finish, lfinish);
  CAT(usage, lusage);
}
static void plan(conn* c, int64_t base) {
  c->due = base + gap;
  if (aligned) c->due -= c->due % gap;
  if (c->due <= base) c->due += gap;
}
static void step(conn* c, int64_t t) {  // one engine step of one stream
  int r;
  hdel(c);
  if (!c->streaming) {
    if (put(c, plain, lplain)) drop(c);
    return;
  }
  if (c->step < NCHUNK) {
    if (c->running_usage) {
      stamp(counted + tsoff_counted, now());
      r = put(c, counted, lcounted);
    } else {
      stamp(content + tsoff, now());
      r = put(c, content, lcontent);
    }
  } else if (c->step == NCHUNK)
    r = put(c, finish, lfinish);
  else {
    r = put(c, usage, lusage);
    c->streaming = 0;
  }
  if (r) {
    drop(c);
    return;
  }
  c->step++;
  if (c->streaming) {
    plan(c, t);
    hpush(c);
  }
}
static int handle(conn* c, const char* body, size_t n) {  // returns 0 when the connection lives on
  const char* b = c->buf;
  int r = 0;
  size_t line = (char*)memchr(b, '\n', c->len) - b;
  if (b[0] == 'P' && memmem(b, line, "/chat/completions", 17)) {
    if (memmem(body, n, "\"stream\":true", 13) || memmem(body, n, "\"stream\": true", 14)) {
      n_stream++;
      if (!gap)
        r = put(c, all, lall);
      else {
        r = put(c, role, lrole);
        c->streaming = 1;
        c->running_usage = !!memmem(body, n, "\"continuous_usage_stats\":true", 29);
        c->step = 0;
        int64_t t = now();
        plan(c, t);
        if (!r) hpush(c);
      }
    } else {
      n_plain++;
      if (delay_ns) {
        c->due = now() + delay_ns;
        hpush(c);
      } else
        r = put(c, plain, lplain);
    }
  } else {
    n_other++;
    r = memmem(b, line, "/health", 7) ? put(c, ok, lok) : put(c, models, lmodels);
  }
  return r;
}
static void on_read(conn* c) {
  for (;;) {
    if (c->cap - c->len < 65536) {
      c->cap = c->cap ? c->cap * 2 : 131072;
      c->buf = realloc(c->buf, c->cap);
    }
    ssize_t r = read(c->fd, c->buf + c->len, c->cap - c->len);
    if (r <= 0) {
      if (r < 0 && errno == EAGAIN) return;
      drop(c);
      return;
    }
    c->len += r;
    int full = (c->len < c->cap);
    char* e = memmem(c->buf, c->len, "\r\n\r\n", 4);
    if (e) {
      size_t hl = e + 4 - c->buf, bl = 0;
      int done = 0;
      *e = 0;  // one request at a time (no pipelining)
      char* p = strcasestr(c->buf, "\ncontent-length:");
      char* q = p ? 0 : strcasestr(c->buf, "\ntransfer-encoding: chunked");
      *e = '\r';
      if (p)
        bl = strtoul(p + 16, 0, 10), done = c->len >= hl + bl;
      else if (q)
        done = c->len >= hl + 5 && !memcmp(c->buf + c->len - 5, "0\r\n\r\n", 5), bl = c->len - hl;
      else
        done = 1;
      if (done) {
        if (handle(c, c->buf + hl, bl))
          drop(c);
        else
          c->len = 0;
        return;
      }
    }
    if (full) return;
  }
}
static void bye(int s) {
  (void)s;
  fprintf(stderr, "mock plain=%lu stream=%lu other=%lu\n", n_plain, n_stream, n_other);
  _exit(0);
}
int main(int ac, char** av) {
  int port = atoi(av[1]);
  if (ac > 2) gap = atoll(av[2]) * 1000;
  if (ac > 3) delay_ns = atoll(av[3]) * 1000;
  if (ac > 4) aligned = atoi(av[4]);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGTERM, bye);
  signal(SIGINT, bye);
  build();
  if (getenv("MOCK_DUMP")) {
    fwrite(plain, 1, lplain, stdout);
    fwrite(all, 1, lall, stdout);
    return 0;
  }
  int ls, one = 1, bad;  // PORT may also be the path of a Unix socket
  if (av[1][0] == '/') {
    struct sockaddr_un u = {.sun_family = AF_UNIX};
    strncpy(u.sun_path, av[1], sizeof u.sun_path - 1);
    unlink(av[1]);
    ls = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    bad = bind(ls, (void*)&u, sizeof u);
  } else {
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    ls = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(ls, SOL_SOCKET, SO_REUSEADDR, &one, 4);
    bad = bind(ls, (void*)&a, sizeof a);
  }
  if (bad || listen(ls, 4096)) {
    perror("bind");
    return 1;
  }
  ep = epoll_create1(0);
  struct epoll_event ev = {.events = EPOLLIN, .data.ptr = 0}, evs[256];
  epoll_ctl(ep, EPOLL_CTL_ADD, ls, &ev);
  for (;;) {
    struct timespec ts, *pt = 0;
    if (nheap) {
      int64_t w = heap[0]->due - now();
      if (w < 0) w = 0;
      ts.tv_sec = w / 1000000000;
      ts.tv_nsec = w % 1000000000;
      pt = &ts;
    }
    int n = epoll_pwait2(ep, evs, 256, pt, 0);
    for (int i = 0; i < n; i++) {
      conn* c = evs[i].data.ptr;
      if (!c) {
        int fd;
        while ((fd = accept4(ls, 0, 0, SOCK_NONBLOCK)) >= 0) {
          setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, 4);
          c = calloc(1, sizeof *c);
          c->fd = fd;
          c->heap = -1;
          ev.events = EPOLLIN;
          ev.data.ptr = c;
          epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
        }
      } else
        on_read(c);
    }
    if (nheap) {
      int64_t t = now();
      while (nheap && heap[0]->due <= t) step(heap[0], t);
    }
  }
}
