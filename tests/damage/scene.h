/* tests/damage/scene.h - small repositories of which every byte is damaged, and
 * what must be read from them. */
#pragma once

#include "../unit/map/temp_repo.h"

#define SCENE_POINTS 4
#define SCENE_CHUNKS 66 /* two leaves and a root; most of it is zero */
#define SCENE_SIZE ((uint64_t)SCENE_CHUNKS * TEMP_CHUNK - 1000)

struct scene_point {
    char id[33];
    const char *machine;
    uint64_t values[SCENE_CHUNKS]; /* for temp_fill() */
};

/* What is in the repository and not forgotten. */
struct scene {
    struct scene_point points[SCENE_POINTS];
    unsigned n;
};

/* Three points of two machines, one that is forgotten, and an object of every
 * other kind. */
void scene_plain(const char *path, struct scene *ret);
/* The same without leftovers, and the forgotten point collected. */
void scene_collected(const char *path, struct scene *ret);
/* The same, encrypted. */
void scene_encrypted(const char *path, struct scene *ret);

/* What became of a damaged repository. */
struct verdict {
    unsigned wrong; /* bytes that are not those that were written, as success */
    bool complete;  /* every point is there and reads as it was written */
    bool found;     /* somebody said that something is wrong */
};
void scene_judge(const struct scene *s, const char *path, struct verdict *ret);
