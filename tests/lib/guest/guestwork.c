/* tests/lib/guest/guestwork.c - the work of the test guest, and its check.
 *
 *     guestwork write DIR [DISK_B DISK_C]
 *     guestwork check DIR [DISK_B DISK_C]
 *     guestwork blank DISK        exit status 0: its first 64 KiB are zero
 *
 * write: n = 1, 2, 3, ... for ever.  Each step, in this order:
 *     slot    DIR/slots, place n % SLOTS: overwritten, fdatasync
 *     record  DIR/records, place n - 1: appended, fsync (journal)
 *     B, C    raw disks, place n % RING: O_DIRECT, O_DSYNC, B before C
 *     "REC n" on stdout
 * Everything written says its kind and n, is filled from them, and carries a
 * checksum, so nothing old, torn or misplaced can pass for right.
 *
 * check: a disk image is one instant of this order exactly if
 *     records 1..N are there without a gap (N = what the file's length says)
 *     slots hold the newest n <= N for their place, but that of step N+1 may
 *         already hold N+1 (or be torn: it was in flight and not yet synced)
 *     N - 1 <= C <= B <= N, and the rings hold the newest n for their place
 * The last condition ties three disks to one instant.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { RECORD = 512, SLOT = 64 << 10, SLOTS = 64 };
enum { BLOCK = 4096, RING = 64, STRIDE = 64 << 10 };

struct work {
    int records, slots; /* in the file system */
    int b, c;           /* raw disks, -1: none */
};

static uint8_t *buf; /* SLOT bytes, aligned for O_DIRECT */

static void
die(const char *what)
{
    printf("FAILED: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t
fnv(const uint8_t *p, size_t len)
{
    uint64_t h = 0xcbf29ce484222325;

    for (size_t i = 0; i < len; i++)
        h = (h ^ p[i]) * 0x100000001b3;
    return h;
}

/* kind, n, bytes made from both, checksum of all before it */
static void
fill(uint8_t *p, size_t len, uint64_t kind, uint64_t n)
{
    uint64_t x = (n << 8 | kind) * 0x9e3779b97f4a7c15 + 1, sum;

    memcpy(p, &kind, 8);
    memcpy(p + 8, &n, 8);
    for (size_t i = 16; i < len - 8; i += 8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        memcpy(p + i, &x, 8);
    }
    sum = fnv(p, len - 8);
    memcpy(p + len - 8, &sum, 8);
}

/* The n of what fill() wrote, or 0 when p is not exactly that. */
static uint64_t
number(const uint8_t *p, size_t len, uint64_t kind)
{
    static uint8_t want[SLOT];
    uint64_t n;

    memcpy(&n, p + 8, 8);
    fill(want, len, kind, n);
    return memcmp(p, want, len) == 0 ? n : 0;
}

static bool
blank(const uint8_t *p, size_t len)
{
    return p[0] == 0 && memcmp(p, p + 1, len - 1) == 0;
}

static void
put(int fd, size_t len, uint64_t kind, uint64_t n, uint64_t at)
{
    fill(buf, len, kind, n);
    if (pwrite(fd, buf, len, (off_t)at) != (ssize_t)len)
        die("write");
}

/* After a restart the last step is done again: the machine may have ended
 * between its record and its counters. */
static void
do_write(const struct work *w)
{
    struct stat st;
    uint64_t last;

    if (fstat(w->records, &st) != 0)
        die("records");
    last = (uint64_t)st.st_size / RECORD;
    for (uint64_t n = last > 0 ? last : 1;; n++) {
        put(w->slots, SLOT, 'S', n, n % SLOTS * SLOT);
        if (fdatasync(w->slots) != 0)
            die("fdatasync");
        put(w->records, RECORD, 'R', n, (n - 1) * RECORD);
        if (fsync(w->records) != 0)
            die("fsync");
        if (w->b >= 0)
            put(w->b, BLOCK, 'B', n, n % RING * STRIDE);
        if (w->c >= 0)
            put(w->c, BLOCK, 'C', n, n % RING * STRIDE);
        printf("REC %llu\n", (unsigned long long)n);
    }
}

static void
bad(const char *what, uint64_t at, uint64_t got)
{
    printf("CHECK FAILED: %s %llu: found %llu\n", what, (unsigned long long)at,
           (unsigned long long)got);
    exit(1);
}

static void
get(int fd, size_t len, uint64_t at, const char *what)
{
    ssize_t n = pread(fd, buf, len, (off_t)at);

    if (n < 0)
        die(what);
    memset(buf + n, 0, len - (size_t)n);
}

static uint64_t
check_records(int fd)
{
    struct stat st;
    uint64_t last;

    if (fstat(fd, &st) != 0)
        die("records");
    last = (uint64_t)st.st_size / RECORD;
    if (st.st_size % RECORD != 0)
        bad("length of records", last, (uint64_t)st.st_size);
    for (uint64_t n = 1; n <= last; n++) {
        get(fd, RECORD, (n - 1) * RECORD, "records");
        if (number(buf, RECORD, 'R') != n)
            bad("record", n, number(buf, RECORD, 'R'));
    }
    return last;
}

static void
check_slots(int fd, uint64_t last)
{
    for (uint64_t i = 0; i < SLOTS; i++) {
        uint64_t want = last - (last + SLOTS - i) % SLOTS, got;

        if (i == (last + 1) % SLOTS || want == 0 || want > last)
            continue; /* in flight, or never written */
        get(fd, SLOT, i * SLOT, "slots");
        got = number(buf, SLOT, 'S');
        if (got != want)
            bad("slot of step", want, got);
    }
}

/* The newest number of a ring whose other places hold what came before. */
static uint64_t
check_ring(int fd, uint64_t kind)
{
    static uint64_t found[RING];
    uint64_t last = 0;

    for (uint64_t i = 0; i < RING; i++) {
        get(fd, BLOCK, i * STRIDE, "ring");
        found[i] = number(buf, BLOCK, kind);
        if (found[i] == 0 && !blank(buf, BLOCK))
            bad("ring place", i, 0);
        if (found[i] > last)
            last = found[i];
    }
    for (uint64_t back = 0; back < RING && back < last; back++)
        if (found[(last - back) % RING] != last - back)
            bad("ring of step", last - back, found[(last - back) % RING]);
    return last;
}

static void
do_check(const struct work *w)
{
    uint64_t last = check_records(w->records), b = last, c = last;

    check_slots(w->slots, last);
    if (w->b >= 0)
        b = check_ring(w->b, 'B');
    if (w->c >= 0)
        c = check_ring(w->c, 'C');
    if (b > last || c > b || c + 1 < last)
        bad("one instant: C is not in N-1..B..N", b, c);
    printf("CHECK records=%llu last=%llu B=%llu C=%llu ok\n",
           (unsigned long long)last, (unsigned long long)last,
           (unsigned long long)b, (unsigned long long)c);
}

static int
open_in(const char *dir, const char *name, bool writing)
{
    char path[256];
    int fd;

    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    fd = open(path, writing ? O_RDWR | O_CREAT : O_RDONLY, 0600);
    if (fd < 0)
        die(path);
    return fd;
}

static int
open_disk(const char *path)
{
    int fd = path ? open(path, O_RDWR | O_DIRECT | O_DSYNC) : -1;

    if (path && fd < 0)
        die(path);
    return fd;
}

static int
do_blank(const char *path)
{
    int fd = open(path, O_RDONLY);

    if (fd < 0)
        die(path);
    get(fd, SLOT, 0, path);
    (void)close(fd);
    return blank(buf, SLOT) ? 0 : 1;
}

int
main(int argc, char **argv)
{
    struct work w;
    bool writing = argc > 2 && strcmp(argv[1], "write") == 0;

    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    buf = aligned_alloc(BLOCK, SLOT);
    if (argc < 3 || buf == NULL)
        return 2;
    if (strcmp(argv[1], "blank") == 0)
        return do_blank(argv[2]);
    w.records = open_in(argv[2], "records", writing);
    w.slots = open_in(argv[2], "slots", writing);
    w.b = open_disk(argc > 3 ? argv[3] : NULL);
    w.c = open_disk(argc > 4 ? argv[4] : NULL);
    if (writing)
        do_write(&w);
    else
        do_check(&w);
    return 0;
}
