#include "world.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "err.h"
#include "io.h"
#include "tap.h"

#define RUN_MS 60000

bool
world_init(struct world *w)
{
    memset(w, 0, sizeof *w);
    (void)snprintf(w->dir, sizeof w->dir, "/tmp/tidemark-test-XXXXXX");
    return mkdtemp(w->dir) != NULL &&
           world_try((const char *const[]){"qemu-nbd", "--version", NULL}) &&
           world_try((const char *const[]){"nbdkit", "--version", NULL}) &&
           world_try((const char *const[]){"qemu-io", "--version", NULL});
}

void
world_done(struct world *w)
{
    const char *rm[] = {"rm", "-rf", w->dir, NULL};

    world_stop_servers(w);
    CHECK(world_try(rm));
}

const char *
world_path(struct world *w, const char *name)
{
    static char ring[8][192];
    static unsigned next;
    char *p = ring[next++ % 8];

    (void)snprintf(p, sizeof ring[0], "%s/%s", w->dir, name);
    return p;
}

bool
world_try(const char *const *argv)
{
    struct child c = CHILD_INIT;
    struct err err = ERR_INIT;
    bool ok =
        child_start(argv, &c, &err) == 0 && child_wait(&c, RUN_MS, &err) == 0;

    child_done(&c);
    if (!ok)
        printf("# %s: %s\n", argv[0], err.msg);
    return ok;
}

void
world_run(const char *const *argv)
{
    CHECK(world_try(argv));
}

void
world_serve(struct world *w, const char *socket, const char *const *argv)
{
    struct child *c = &w->server[w->n_servers];
    struct deadline d = deadline_in(RUN_MS);
    struct err err = ERR_INIT;

    CHECK_OK(child_start(argv, c, &err), &err);
    w->n_servers++;
    while (!world_exists(socket) && deadline_left(d) > 0)
        if (child_ended(c, 5)) {
            (void)child_wait(c, 0, &err);
            printf("# %s\n", err.msg);
            break;
        }
    CHECK(world_exists(socket));
}

void
world_stop_servers(struct world *w)
{
    while (w->n_servers > 0) {
        struct child *c = &w->server[--w->n_servers];

        /* How a server takes the end of its clients is not our subject. */
        if (c->pid > 0)
            (void)child_stop(c, RUN_MS, NULL);
        child_done(c);
    }
}

/* 64 KiB blocks, each of a kind: noise, zeroes, one byte, half zero. */
static void
make_block(uint8_t *b, size_t len, uint32_t *state)
{
    uint32_t kind = (*state >> 13) % 4;

    memset(b, kind == 2 ? 0x5a : 0, len);
    for (size_t i = 0; i < len && kind != 2; i++) {
        *state = *state * 1664525u + 1013904223u;
        if (kind == 0 || (kind == 3 && i > len / 2))
            b[i] = (uint8_t)(*state >> 16);
    }
    *state = *state * 1664525u + 1013904223u;
}

void
world_make_raw(const char *path, uint64_t size, uint32_t seed)
{
    static uint8_t b[65536];
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    CHECK(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
    for (uint64_t off = 0; off < size; off += sizeof b) {
        size_t len = size - off < sizeof b ? size - off : sizeof b;

        make_block(b, len, &seed);
        /* Zeroes stay holes, so that some are known without reading. */
        if (b[0] != 0 || memcmp(b, b + 1, len - 1) != 0)
            CHECK(io_pwrite_full(fd, b, len, off) == 0);
    }
    CHECK(close(fd) == 0);
}

void
world_flip(const char *path, uint64_t off)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    uint8_t b = 0;

    CHECK(fd >= 0 && io_pread_full(fd, &b, 1, off) == 1);
    b ^= 0xff;
    CHECK(io_pwrite_full(fd, &b, 1, off) == 0);
    (void)close(fd);
}

bool
world_size_is(const char *path, uint64_t size)
{
    struct stat st;

    return stat(path, &st) == 0 && (uint64_t)st.st_size == size;
}

bool
world_exists(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0;
}
