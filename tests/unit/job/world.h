/* What the tests of whole jobs need: a directory, QEMU's programs, exports.
 * Everything ends with world_done(). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "child.h"

struct jv;

#define WORLD_SERVERS 10

struct world {
    char dir[64];
    struct child server[WORLD_SERVERS];
    unsigned n_servers;
};

/* False (and the test should be skipped) when programs are missing. */
bool world_init(struct world *w);
void world_done(struct world *w);

/* "DIR/name"; good for the next eight calls. */
const char *world_path(struct world *w, const char *name);

/* Run a program to its end; CHECKs that it succeeds. */
#define RUN(...) world_run((const char *const[]){__VA_ARGS__, NULL})
void world_run(const char *const *argv);
/* The exit status of the same. */
bool world_try(const char *const *argv);

/* Start a server whose last words are a socket that appears. */
#define SERVE(w, sock, ...) \
    world_serve(w, sock, (const char *const[]){__VA_ARGS__, NULL})
void world_serve(struct world *w, const char *socket, const char *const *argv);
void world_stop_servers(struct world *w);

/* A file of `size` bytes: areas of data, zeroes and repeats, from `seed`. */
void world_make_raw(const char *path, uint64_t size, uint32_t seed);
/* Change the byte at `off`. */
void world_flip(const char *path, uint64_t off);
/* The file has exactly this size. */
bool world_size_is(const char *path, uint64_t size);
bool world_exists(const char *path);
