/* The protocol of docs/format.md 11 and 13 as a model for spin.
 *
 * One chunk that every point needs.  Points and chunks do not know of each
 * other in the protocol, so whatever can happen to one of many chunks can happen
 * to this one.  It is in the pack of the first point; writers share it with
 * a base point, find it in the index, or store it in a pack of their own;
 * collectors condemn any packs they like (dead, half dead, small: the reason
 * makes no difference to the chunk), copy the chunk and remove.  Each collector
 * runs once.  A process that is slow, stopped or dead is one that does not move:
 * every statement may be the last one of its process.
 *
 * Number i is one session, its commit object, its point and its pack:
 *     0 the first point   1, 2 writers   3, 4 collectors
 *
 * SAFE must hold in every state.  It is asserted where something is removed or
 * begins to count; nothing else can break it.
 *
 * tests/model/collect.py runs it, and every variant below, each of which leaves
 * one rule out and must be found:
 *   NO_WAIT            6  does not wait for the sessions that were there
 *   LIST_FIRST         6  lists sessions before the condemned list is published
 *   IGNORE_CONDEMNED   11 the writer does not read the condemned lists
 *   INDEX_FIRST        11 the writer reads the index, and which packs are there,
 *                         before it registers
 *   STALE_BASE         11 the base was chosen before the writer registered
 *   COMMITS_FIRST      11 the writer lists the points, then what is forgotten
 *   UNCOMMITTED        7  segments of sessions without a COMMIT count
 *   NO_FENCE           6  the commit object is not created exclusively
 *   FENCE_REMOVED      13 a fence is removed with what is left of its session
 *   NO_SECOND_MARK     7  what was dead stays dead
 *   FORGET_AGAIN       7  the second mark leaves out what was forgotten since
 *   NO_EXCLUSION       1  two collectors work at once
 *   NO_PINS            2, 7  pins are not read
 *   PIN_LATE           13.5  the reader registers after it has read forget/
 *   NO_TAKEOVER        13.4  packs of commit objects that go are not taken over
 *   REMOVE_FIRST       10 packs are removed before the collector's COMMIT
 *
 * Found to be safe, so not needed for safety but for what the model does not
 * have: the fence before leftovers are removed (13.3; it is for a session object
 * that somebody else removed), and one of the two readings of pins (2 and 7).
 */
#ifndef WRITERS
#define WRITERS 2
#endif
#ifndef COLLECTORS
#define COLLECTORS 1
#endif
#ifndef READERS
#define READERS 1
#endif

#define BIT(i)  (1 << (i))
#define POINTS  7  /* bits of commit objects that hold a point */
#define WRITER_BITS 6

/* The store.  Bits are by number. */
byte packs = 1;    /* packs that exist */
byte commits = 1;  /* commit objects of type COMMIT that exist */
byte aborts = 0;   /* and of type ABORT */
byte forgets = 0;  /* forget objects */
byte sessions = 0; /* session objects of writers and collectors */
byte pinned = 0;   /* the point that the reader's session object names */
byte names[5];     /* packs that a session's segments name */
byte condemned[5]; /* gc/<sid>.condemned of a collector, 0: none */
byte gone[5];      /* in a collector's COMMIT: packs that do not count */
byte removed[5];   /* and commit objects that do not */

/* For the proof only. */
byte made = 1;     /* points that were ever committed */
byte dropped = 0;  /* points that were ever forgotten */
byte holds = 0;    /* points that the reader was promised */

#define GONE    (gone[3] | gone[4])
#define REMOVED (removed[3] | removed[4])
#define CONDEMNED (condemned[3] | condemned[4])
#define ENDED(i)  (((commits | aborts) & BIT(i)) != 0)
#define COUNT   (commits & ~REMOVED)
#define NAMED(set) \
    ((((set) & 1) * names[0]) | ((((set) >> 1) & 1) * names[1]) | \
     ((((set) >> 2) & 1) * names[2]) | ((((set) >> 3) & 1) * names[3]) | \
     ((((set) >> 4) & 1) * names[4]))
#ifdef UNCOMMITTED
#define INDEX   (NAMED(31) & ~GONE)
#else
#define INDEX   (NAMED(COUNT) & ~GONE) /* packs whose records count */
#endif

#ifdef INDEX_FIRST
#define FOUND   (index != 0)
#else
#define FOUND   ((index & packs) != 0)
#endif

#define LIVING  (made & ~dropped)
#define SAFE \
    ((LIVING & ~COUNT) == 0 && \
     ((LIVING | holds) == 0 || (packs & NAMED(COUNT) & ~GONE) != 0))

/* -- writers: section 11 --------------------------------------------------------*/

inline write_read_forgets()
{
    atomic { not_base = forgets }
}

inline write_read_index()
{
    atomic {
        base = COUNT & POINTS & ~not_base;
        index = INDEX & ~avoid;
    }
}

inline write_end_without()
{
    atomic { packs = packs & ~BIT(me); assert(SAFE) }
    atomic { sessions = sessions & ~BIT(me) }
}

proctype writer(byte me)
{
    byte avoid, not_base, base, index;

#ifdef INDEX_FIRST
    write_read_index();
    atomic { index = index & packs }
#endif
#ifdef STALE_BASE
    write_read_forgets();
    atomic { base = COUNT & POINTS & ~not_base }
#endif
    sessions = sessions | BIT(me);
#ifndef IGNORE_CONDEMNED
    atomic { avoid = CONDEMNED }
#endif
#ifdef COMMITS_FIRST
    write_read_index();
    atomic { base = base & ~forgets }
#else
#ifdef INDEX_FIRST
    /* the index is what it was; the base is honest */
    write_read_forgets();
    atomic { base = COUNT & POINTS & ~not_base; index = index & ~avoid }
#else
#ifdef STALE_BASE
    atomic { index = INDEX & ~avoid }
#else
    write_read_forgets();
    write_read_index();
#endif
#endif
#endif
    atomic {
        not_base = 0;
        avoid = 0;
        if
        :: base != 0                /* shares a subtree: asks nobody */
        :: FOUND                    /* finds a record whose pack is there */
        :: !FOUND -> index = 0; base = 0; goto store
        fi;
        index = 0; base = 0;
        goto commit
    }
store:
    atomic { packs = packs | BIT(me) }
    atomic { names[me] = BIT(me) }
    if
    :: (packs & BIT(me)) != 0
    :: (packs & BIT(me)) == 0 -> goto refused
    fi;
commit:
    if
    :: atomic {
#ifdef NO_FENCE
           true -> aborts = aborts & ~BIT(me);
#else
           !ENDED(me) ->
#endif
           commits = commits | BIT(me);
           made = made | BIT(me);
           assert(SAFE)
       };
       sessions = sessions & ~BIT(me);
       goto done
#ifndef NO_FENCE
    :: ENDED(me)
#endif
    :: true /* gives up */
    fi;
refused:
    write_end_without();
done:
    skip
}

/* -- forgetting, and a reader with a pin ------------------------------------------*/

active proctype forgetter()
{
    byte i;

end:
    do
    :: atomic { (COUNT & ~forgets & ~dropped & 1) != 0 -> i = 1 }
       atomic { forgets = forgets | i; dropped = dropped | i; i = 0 }
#if WRITERS > 0
    :: atomic { (COUNT & ~forgets & ~dropped & 2) != 0 -> i = 2 }
       atomic { forgets = forgets | i; dropped = dropped | i; i = 0 }
#endif
    od
}

proctype reader()
{
    byte want;

    if
    :: want = 1
    :: atomic { (COUNT & 2) != 0 -> want = 2 }
    fi;
#ifdef PIN_LATE
    if
    :: (forgets & want) == 0
    :: (forgets & want) != 0 -> goto done
    fi;
#endif
    pinned = want;
#ifndef PIN_LATE
    if
    :: (forgets & want) == 0
    :: (forgets & want) != 0 -> goto unpin
    fi;
#endif
    if
    :: atomic { (COUNT & want) != 0 -> holds = want; assert(SAFE) }
    :: (COUNT & want) == 0
    fi;
    holds = 0;
unpin:
    pinned = 0;
done:
    want = 0
}

/* -- collectors: section 13 -------------------------------------------------------*/

/* Step 10 of the collector g; anyone may do it, also several at once. */
inline remove_what_is_gone(g)
{
    atomic { commits = commits & ~removed[g]; assert(SAFE) }
    atomic { forgets = forgets & ~removed[g] }
    atomic { packs = packs & ~gone[g]; assert(SAFE) }
    atomic {
        if :: (condemned[3] & ~GONE) == 0 -> condemned[3] = 0 :: else fi;
        if :: (condemned[4] & ~GONE) == 0 -> condemned[4] = 0 :: else fi
    }
    atomic {
        sessions = sessions & ~((aborts | commits) & ~BIT(me));
#ifdef FENCE_REMOVED
        aborts = 0;
#endif
    }
}

inline fence(i)
{
    atomic {
        if
        :: !ENDED(i) -> aborts = aborts | BIT(i)
        :: else
        fi
    }
}

/* Whoever was there has ended, or is fenced. */
inline wait_for(i)
{
    if
    :: (wait & BIT(i)) == 0
    :: (wait & BIT(i)) != 0 && (ENDED(i) || (sessions & BIT(i)) == 0)
    :: (wait & BIT(i)) != 0 -> fence(i)
    fi
}

inline list_sessions()
{
    atomic { wait = sessions & WRITER_BITS & ~(commits | aborts) }
}

/* A pack without a COMMIT of its session, which was not registered. */
inline leftover(i)
{
    if
    :: (left & BIT(i)) == 0
    :: (left & BIT(i)) != 0 ->
        fence(i);
        atomic {
            if
            :: (aborts & BIT(i)) == 0 -> left = left & ~BIT(i)
            :: else
            fi
        }
    fi
}

inline maybe_condemn(i)
{
    if
    :: (take & BIT(i)) != 0 -> mine = mine | BIT(i)
    :: true
    fi
}

proctype collector(byte me)
{
    byte other = 7 - me;
    byte mine;    /* packs to remove */
    byte roots;   /* live points */
    byte seen;    /* points of the first reading */
    byte dying;   /* commit objects to remove */
    byte wait, left, take;
    bool live;

    /* 1 */
    sessions = sessions | BIT(me);
#ifndef NO_EXCLUSION
    if
    :: atomic { (sessions & BIT(other)) != 0 && !ENDED(other) ->
           sessions = sessions & ~BIT(me) };
       goto done
    :: (sessions & BIT(other)) != 0 && !ENDED(other) -> fence(other)
    :: (sessions & BIT(other)) == 0 || ENDED(other)
    fi;
#endif
    if
    :: (commits & BIT(other)) != 0 -> remove_what_is_gone(other)
    :: (commits & BIT(other)) == 0
    fi;
    /* 2 */
    atomic { mine = CONDEMNED }
    atomic { dying = forgets }
    atomic {
#ifndef NO_PINS
        roots = pinned;
#endif
        left = sessions & WRITER_BITS
    }
    atomic {
        seen = COUNT & POINTS;
        roots = roots | (seen & ~dying);
        dying = seen & dying & ~roots;
        take = INDEX;
        /* packs of sessions that were not there any more, or are fenced */
        left = packs & (WRITER_BITS | BIT(other)) & ~commits & (~left | aborts) &
               (WRITER_BITS | aborts)
    }
    /* 3, 4 */
    leftover(1);
    leftover(2);
    atomic {
        take = take | left | (packs & aborts);
        left = 0;
        maybe_condemn(0);
        maybe_condemn(1);
        maybe_condemn(2);
        maybe_condemn(3);
        maybe_condemn(4);
        take = 0
    }
#ifdef LIST_FIRST
    list_sessions();
#endif
    /* 5 */
    atomic { condemned[me] = mine }
    /* 6 */
#ifndef LIST_FIRST
    list_sessions();
#endif
#ifndef NO_WAIT
    wait_for(1);
    wait_for(2);
#endif
    wait = 0;
    /* 7 */
#ifndef NO_SECOND_MARK
#ifdef FORGET_AGAIN
    atomic { left = forgets }
#endif
#ifndef NO_PINS
    atomic { roots = roots | pinned }
#endif
    atomic {
#ifdef FORGET_AGAIN
        roots = pinned | (COUNT & POINTS & ~left);
        left = 0;
#else
        roots = roots | (COUNT & POINTS & ~seen);
#endif
    }
#endif
    atomic { dying = dying & ~roots; seen = 0 }
    /* 8 */
    atomic {
        live = (roots != 0);
        roots = 0;
        if
        :: live && (INDEX & packs & ~mine) == 0 -> packs = packs | BIT(me);
           take = BIT(me); names[me] = BIT(me)
        :: else
        fi;
        live = false
    }
#ifdef REMOVE_FIRST
    atomic { packs = packs & ~mine; assert(SAFE) }
#endif
    /* 9 */
    if
    :: atomic { !ENDED(me) ->
#ifndef NO_TAKEOVER
           take = take | (NAMED(dying) & INDEX & ~mine);
#endif
           names[me] = take;
           gone[me] = mine;
           removed[me] = dying;
           commits = commits | BIT(me);
           take = 0; mine = 0; dying = 0;
           assert(SAFE)
       }
    :: atomic { ENDED(me) -> packs = packs & ~BIT(me);
           take = 0; mine = 0; dying = 0 };
       goto done
    fi;
    /* 10, 11 */
    remove_what_is_gone(me);
    sessions = sessions & ~BIT(me);
done:
    skip
}

init {
    atomic {
        names[0] = 1;
#if WRITERS > 0
        run writer(1);
#endif
#if WRITERS > 1
        run writer(2);
#endif
#if READERS > 0
        run reader();
#endif
        run collector(3);
#if COLLECTORS > 1
        run collector(4);
#endif
    }
}
