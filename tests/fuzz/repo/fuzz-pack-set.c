/* Sets of packs: what is read is written again and read as the same set; and the
 * names of packs and of features, which are parsers, too. */
#include <stdlib.h>
#include <string.h>

#include "format.h"
#include "internal.h"
#include "jv.h"
#include "key.h"
#include "pack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
round_trip(const struct jv *j)
{
    struct pack_set *a = pack_set_new(), *b = pack_set_new();
    struct jv *again = NULL;

    if (a == NULL || b == NULL)
        abort();
    if (pack_set_from_json(a, j, NULL) == 0) {
        again = pack_set_to_json(a);
        if (again == NULL || pack_set_from_json(b, again, NULL) < 0 ||
            pack_set_n(a) != pack_set_n(b))
            abort();
        for (size_t i = 0; i < pack_set_n(a) && i < 1000; i++)
            if (!pack_set_has(b, pack_set_at(a, i)))
                abort();
    }
    jv_free(again);
    pack_set_free(a);
    pack_set_free(b);
}

static void
names(const char *text)
{
    char back[REPO_KEY_MAX], read_only[64] = "";
    struct pack_name n;

    if (pack_name_parse(text, &n)) {
        pack_key(&n, back);
        if (strcmp(back, text) != 0 || !store_key_valid(text))
            abort();
    }
    if (strncmp(text, "feature/", strlen("feature/")) == 0)
        (void)format_feature(text, read_only, sizeof read_only, NULL);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct jv *j = NULL;
    char *text;

    if (jv_parse(data, size, JV_DEPTH_MAX, &j, NULL) == 0)
        round_trip(j);
    jv_free(j);
    text = malloc(size + 1);
    if (text == NULL)
        abort();
    memcpy(text, data, size);
    text[size] = '\0';
    names(text);
    free(text);
    return 0;
}
