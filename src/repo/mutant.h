/* repo/mutant.h - the protocol broken on purpose, for tests that must notice.
 *
 * Each rule of docs/format.md 11 and 13 that protects data has a variant here
 * that leaves it out.  Only a library built with TIDEMARK_MUTANTS has them; the
 * program never is.
 */
#pragma once

#include <stdbool.h>

enum repo_mutant_kind {
    MUTANT_NONE = 0,
    /* the collector */
    MUTANT_GC_NO_WAIT,        /* does not wait for sessions */
    MUTANT_GC_SESSIONS_FIRST, /* lists sessions, then publishes condemned */
    MUTANT_GC_DELETE_FIRST,   /* deletes before its own COMMIT */
    MUTANT_GC_ROOTS_SHRINK,   /* reads forgets again for the second mark */
    MUTANT_GC_OWN_CONDEMNED,  /* copies from its own condemned packs only */
    MUTANT_GC_LEFTOVERS,      /* "no COMMIT" is enough for a leftover */
    MUTANT_GC_NO_COPY,        /* copies no survivors */
    MUTANT_GC_NO_PINS,        /* does not read pins */
    MUTANT_GC_NO_EXCLUSION,   /* does not look for other collectors */
    /* the writer */
    MUTANT_PUT_CONDEMNED,      /* reuses what is condemned */
    MUTANT_PUT_INDEX_FIRST,    /* reads the index, then registers */
    MUTANT_PUT_COMMIT_SHARED,  /* its commit replaces a fence */
    MUTANT_PUT_FORGOTTEN_BASE, /* chooses its base, then registers (the caller's
                                * duty, so the simulator has it) */
    MUTANT_PUT_OLD_LOOKS,      /* believes in packs seen before it registered */
    MUTANT_PUT_UNCOMMITTED,    /* segments of unfinished sessions count */
    MUTANT_MAX,
};

#ifdef TIDEMARK_MUTANTS
extern unsigned repo_mutant; /* an enum repo_mutant_kind */
#define MUTANT(kind) (repo_mutant == (kind))
#else
#define MUTANT(kind) false
#endif
