// HTTP/1.1 load generator for chat-completions gateways (epoll, one thread, keep-alive, no
// pipelining).
//   cc -O2 -o load load.c
//   ./load PORT body.json [-c conns=8] [-r req/s, 0 = closed loop] [-d seconds=5] [-n stop after N
//   requests] [-p path]
//          [-H "Name: value"]...
// Open loop (-r): latency counts from the scheduled start, so a stalled gateway is not forgiven.
// Prints one JSON line. "events" are SSE "data:" lines; a stream must end with [DONE] or it counts
// as an error. "delay" is the one-way delay of content chunks, from the "@<ns>" stamp written by
// mock.c; "ttfb" is the first body byte.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
typedef struct {
  int fd, busy, served;
  int64_t t0, first;
  char* buf;
  size_t len, cap, hl, clen, scan, ev;
  int mode, sse;
} conn;  // mode 1 length 2 chunked
typedef struct {
  int64_t* v;
  size_t n, cap;
} vec;
static vec lat, ttfb, delay;
static char req[1 << 21];
static size_t lreq;
static int port, ep;
static uint64_t ok, err, events, bytes, reconnects;
static char firsterr[300];
static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}
static void add(vec* a, int64_t x) {
  if (a->n == a->cap) {
    a->cap = a->cap ? a->cap * 2 : 65536;
    a->v = realloc(a->v, a->cap * 8);
  }
  a->v[a->n++] = x;
}
static int cmp(const void* a, const void* b) {
  int64_t x = *(int64_t*)a, y = *(int64_t*)b;
  return x < y ? -1 : x > y;
}
static void show(const char* k, vec* a) {
  qsort(a->v, a->n, 8, cmp);
#define Q(q) (a->n ? a->v[(size_t)fmin(a->n - 1, floor(a->n * q))] / 1000.0 : 0)
  double s = 0;
  for (size_t i = 0; i < a->n; i++) s += a->v[i];
  printf(",\"%s_us\":{\"n\":%zu,\"mean\":%.1f,\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"max\":%.1f}",
         k, a->n, a->n ? s / a->n / 1000 : 0, Q(.5), Q(.9), Q(.99), Q(1));
}
static void dial(conn* c) {
  struct sockaddr_in a = {
      .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int one = 1;
  if (c->fd > 0) {
    close(c->fd);
    reconnects++;
  }
  c->fd = socket(AF_INET, SOCK_STREAM, 0);
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, 4);
  if (connect(c->fd, (void*)&a, sizeof a)) {
    perror("connect");
    exit(1);
  }
  struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
  epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &ev);
  c->busy = 0;
  c->served = 0;
}
static void fire(conn* c, int64_t t0) {
  c->t0 = t0;
  c->busy = 1;
  c->len = c->hl = c->clen = c->scan = c->ev = 0;
  c->first = 0;
  c->mode = 0;
  size_t o = 0;
  while (o < lreq) {
    ssize_t r = write(c->fd, req + o, lreq - o);
    if (r <= 0) {
      if (c->served) {
        dial(c);
        c->t0 = t0;
        c->busy = 1;
        o = 0;
        continue;
      }
      err++;
      c->busy = 0;
      return;
    }
    o += r;
  }
}
static void fail(conn* c, const char* why) {
  err++;
  if (!firsterr[0]) {
    size_t n = c->len < 200 ? c->len : 200;
    snprintf(firsterr, sizeof firsterr, "%s: %.*s", why, (int)n, c->buf ? c->buf : "");
    for (char* p = firsterr; *p; p++)
      if (*p < 32 || *p == '"' || *p == '\\') *p = ' ';
  }
}
static void done(conn* c, int64_t t) {
  int good = !strncmp(c->buf, "HTTP/1.1 200", 12);
  if (good && c->sse &&
      !memmem(c->buf + (c->len > 200 ? c->len - 200 : 0), c->len > 200 ? 200 : c->len, "[DONE]", 6))
    good = 0;
  if (!good)
    fail(c, "bad answer");
  else {
    ok++;
    add(&lat, t - c->t0);
    add(&ttfb, c->first - c->t0);
    events += c->ev;
  }
  bytes += c->len;
  c->busy = 0;
  c->served++;
}
static void rd(conn* c) {
  if (c->cap - c->len < 65536) {
    c->cap += 131072;
    c->buf = realloc(c->buf, c->cap + 1);
  }
  ssize_t r = recv(c->fd, c->buf + c->len, c->cap - c->len, MSG_DONTWAIT);
  int64_t t = now();
  if (r < 0 && errno == EAGAIN) return;
  if (r <= 0) {
    int was = c->busy;
    int retry = was && c->len == 0 && c->served;
    int64_t t0 = c->t0;
    if (was && !retry) fail(c, "closed early");
    dial(c);
    if (retry) fire(c, t0);
    return;
  }
  if (!c->busy) {
    return;
  }
  c->len += r;
  c->buf[c->len] = 0;
  if (!c->mode) {
    char* e = memmem(c->buf, c->len, "\r\n\r\n", 4);
    if (!e) return;
    c->hl = e + 4 - c->buf;
    *e = 0;
    char* p = strcasestr(c->buf, "\ncontent-length:");
    c->sse = !!strcasestr(c->buf, "text/event-stream");
    if (p) {
      c->mode = 1;
      c->clen = strtoul(p + 16, 0, 10);
    } else if (strcasestr(c->buf, "\ntransfer-encoding: chunked"))
      c->mode = 2;
    else {
      fail(c, "no length");
      dial(c);
      return;
    }
    *e = '\r';
    c->scan = c->hl;
  }
  if (!c->first && c->len > c->hl) c->first = t;
  if (c->sse) {
    char *p = c->buf + c->scan, *end = c->buf + c->len,
         *q;  // count events and read stamps; keep a 64-byte tail for split matches
    while ((q = memmem(p, end - p, "data:", 5))) {
      char* lf = memchr(q, '\n', end - q);
      if (!lf) break;
      c->ev++;
      char* s = memmem(q, lf - q, "\"@", 2);
      if (s && lf - s > 21) add(&delay, t - strtoll(s + 2, 0, 10));
      p = lf;
    }
    c->scan = p - c->buf;
  }
  if (c->mode == 1 ? c->len >= c->hl + c->clen
                   : (c->len >= c->hl + 5 && !memcmp(c->buf + c->len - 5, "0\r\n\r\n", 5))) {
    if (!c->first) c->first = t;
    done(c, t);
  }
}
int main(int ac, char** av) {
  int n = 8;
  double rate = 0, secs = 5;
  uint64_t maxn = ~0ull;
  const char* path = "/v1/chat/completions";
  char hdr[8192] = "";
  port = atoi(av[1]);
  for (int i = 3; i + 1 < ac; i += 2) {
    char o = av[i][1];
    char* v = av[i + 1];
    if (o == 'c')
      n = atoi(v);
    else if (o == 'r')
      rate = atof(v);
    else if (o == 'd')
      secs = atof(v);
    else if (o == 'n')
      maxn = atoll(v);
    else if (o == 'p')
      path = v;
    else if (o == 'H') {
      strcat(hdr, v);
      strcat(hdr, "\r\n");
    }
  }
  static char body[1 << 20];
  FILE* f = fopen(av[2], "r");
  if (!f) {
    perror(av[2]);
    return 1;
  }
  size_t lb = fread(body, 1, sizeof body, f);
  fclose(f);
  lreq =
      sprintf(req,
              "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: load\r\nAccept: "
              "application/json\r\nContent-Type: application/json\r\n%sContent-Length: %zu\r\n\r\n",
              path, port, hdr, lb);
  memcpy(req + lreq, body, lb);
  lreq += lb;
  signal(SIGPIPE, SIG_IGN);
  ep = epoll_create1(0);
  conn* cs = calloc(n, sizeof *cs);
  for (int i = 0; i < n; i++) dial(cs + i);
  struct epoll_event evs[256];
  int64_t start = now(), stop = start + secs * 1e9, period = rate > 0 ? 1e9 / rate : 0,
          next = start;
  uint64_t sent = 0, late = 0;
  for (;;) {
    int64_t t = now();
    int busy = 0, going = t < stop && sent < maxn;
    for (int i = 0; i < n; i++) {
      conn* c = cs + i;
      if (!c->busy && going && sent < maxn) {
        if (!period) {
          fire(c, now());
          sent++;
        } else if (next <= t && next < stop) {
          fire(c, next);
          next += period;
          sent++;
        }
      }
      busy += c->busy;
    }
    if (period && next <= t && going && busy == n) late++;
    if (!going && (!busy || t > stop + 20000000000LL)) break;
    struct timespec ts = {0, 50000000};
    if (period && going && busy < n) {
      int64_t w = next - now();
      if (w < 0) w = 0;
      if (w < 50000000) ts.tv_nsec = w;
    }
    int k = epoll_pwait2(ep, evs, 256, &ts, 0);
    for (int i = 0; i < k; i++) {
      conn* c = evs[i].data.ptr;
      rd(c);
      if (!period && !c->busy && now() < stop && sent < maxn) {
        fire(c, now());
        sent++;
      }
    }
  }
  double el = (now() - start) / 1e9;
  printf(
      "{\"ok\":%lu,\"err\":%lu,\"sent\":%lu,\"secs\":%.3f,\"rps\":%.1f,\"events\":%lu,\"bytes\":%"
      "lu,\"reconnects\":%lu",
      ok, err, sent, el, ok / el, events, bytes, reconnects);
  show("lat", &lat);
  show("ttfb", &ttfb);
  show("delay", &delay);
  printf(",\"first_error\":\"%s\"}\n", firsterr);
  return 0;
}
