/* Key slots and paper keys: as they are, and with a checksum that fits. */
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "hash.h"
#include "keyslot.h"
#include "paper.h"
#include "rand.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
slot(const uint8_t *data, size_t size)
{
    struct key_slot s;

    if (key_slot_decode(data, size, &s, NULL) < 0)
        return;
    if (strlen(s.name) != KEY_SLOT_TEXT - 1 || strlen(s.repo) != 32 ||
        key_label_check(s.label, NULL) < 0 || kdf_check_cost(&s.cost, NULL) < 0)
        abort();
}

static void
paper(const uint8_t *data, size_t size)
{
    uint8_t master[KEY_MASTER_LEN];
    char repo[33], text[PAPER_TEXT_MAX];
    size_t len;

    if (paper_decode((const char *)data, size, repo, master, NULL) < 0)
        return;
    paper_encode(repo, master, text, &len);
    if (paper_decode(text, len, repo, master, NULL) < 0)
        abort();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *end = size > 0 ? memchr(data, '\n', size) : NULL;
    size_t line = end != NULL ? (size_t)(end + 1 - data) : size;
    struct buf b = BUF_INIT;
    uint8_t sum[HASH_LEN];
    char hex[2 * HASH_LEN + 1];

    slot(data, size);
    paper(data, size);
    if (buf_append(&b, data, line, NULL) < 0 ||
        (end == NULL && buf_append(&b, "\n", 1, NULL) < 0) ||
        hash_sha256(b.data, b.len, sum, NULL) < 0)
        abort();
    hex_encode(sum, sizeof sum, hex);
    if (buf_printf(&b, "sha256 %s\n", NULL, hex) < 0)
        abort();
    slot(b.data, b.len);
    buf_done(&b);
    return 0;
}
