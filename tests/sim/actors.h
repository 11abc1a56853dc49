/* tests/sim/actors.h - processes that use one repository at once. */
#pragma once

#include "schedule.h"
#include "shadow.h"

/* All take the shadow as a->arg. */
void actor_writer(struct actor *a);
void actor_forgetter(struct actor *a);
void actor_reader(struct actor *a);
void actor_collector(struct actor *a);
/* Nothing may be left after it. */
void actor_last(struct actor *a);
