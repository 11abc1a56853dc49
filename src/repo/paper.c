#include "paper.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "err.h"
#include "guarded.h"
#include "rand.h"

#define PREFIX "tidemark"
#define LINES 4
#define LINE_BYTES 8
#define DATA 13 /* characters for 64 bits; the last bit is 0 */
#define SUM 6
#define CONSTANT 0x2bc830a3u /* bech32m */
#define ID_WORDS 26          /* 128 bits; the last two are 0 */
#define WORDS (2 * sizeof PREFIX - 1 + 1 + ID_WORDS + DATA + SUM)

static const char alphabet[] = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";

/* -- bits and the code ------------------------------------------------------*/

/* `n` groups of 5 bits from bytes, most significant first, filled with 0. */
static void
to_words(const uint8_t *bytes, size_t len, uint8_t *words, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint8_t w = 0;

        for (size_t bit = 5 * i; bit < 5 * i + 5; bit++) {
            unsigned one =
                bit < 8 * len ? bytes[bit / 8] >> (7 - bit % 8) & 1 : 0;

            w = (uint8_t)(w << 1 | one);
        }
        words[i] = w;
    }
}

/* Back; false when a bit behind the end is set. */
static bool
from_words(const uint8_t *words, size_t n, uint8_t *bytes, size_t len)
{
    memset(bytes, 0, len);
    for (size_t bit = 0; bit < 5 * n; bit++) {
        unsigned one = words[bit / 5] >> (4 - bit % 5) & 1;

        if (bit >= 8 * len && one != 0)
            return false;
        if (bit < 8 * len)
            bytes[bit / 8] |= (uint8_t)(one << (7 - bit % 8));
    }
    return true;
}

static uint32_t
polymod(const uint8_t *words, size_t n)
{
    static const uint32_t generator[5] = {0x3b6a57b2, 0x26508e6d, 0x1ea119fa,
                                          0x3d4233dd, 0x2a1462b3};
    uint32_t c = 1;

    for (size_t i = 0; i < n; i++) {
        uint32_t top = c >> 25;

        c = (c & 0x1ffffff) << 5 ^ words[i];
        for (unsigned k = 0; k < 5; k++)
            if ((top >> k & 1) != 0)
                c ^= generator[k];
    }
    return c;
}

/* All that the checksum of a line covers, with room for the line. */
static uint8_t *
line_words(const char repo[33], unsigned line, uint8_t words[WORDS])
{
    uint8_t id[REPO_ID_LEN] = {0};
    uint8_t *p = words;

    for (const char *c = PREFIX; *c != '\0'; c++)
        *p++ = (uint8_t)(*c >> 5);
    *p++ = 0;
    for (const char *c = PREFIX; *c != '\0'; c++)
        *p++ = (uint8_t)(*c & 31);
    *p++ = (uint8_t)line;
    (void)hex_decode(repo, id, sizeof id);
    to_words(id, sizeof id, p, ID_WORDS);
    return p + ID_WORDS;
}

/* -- encoding ---------------------------------------------------------------*/

static void
add_line(const char repo[33], unsigned line, const uint8_t *bytes, char *text)
{
    uint8_t words[WORDS] = {0};
    uint8_t *w = line_words(repo, line, words);
    uint32_t sum;
    size_t at;

    to_words(bytes, LINE_BYTES, w, DATA);
    sum = polymod(words, (size_t)(w - words) + DATA + SUM) ^ CONSTANT;
    for (unsigned i = 0; i < SUM; i++)
        w[DATA + i] = sum >> 5 * (SUM - 1 - i) & 31;
    at = (size_t)sprintf(text, "%u ", line);
    for (unsigned i = 0; i < DATA + SUM; i++) {
        if (i % 4 == 0)
            text[at++] = ' ';
        text[at++] = alphabet[w[i]];
    }
    text[at++] = '\n';
    text[at] = '\0';
    wipe(words, sizeof words);
}

void
paper_encode(const char repo[33], const uint8_t master[KEY_MASTER_LEN],
             char text[PAPER_TEXT_MAX], size_t *ret_len)
{
    (void)snprintf(text, PAPER_TEXT_MAX,
                   "tidemark paper key 1\nrepository %s\n", repo);
    for (unsigned line = 1; line <= LINES; line++)
        add_line(repo, line, master + (line - 1) * LINE_BYTES,
                 text + strlen(text));
    *ret_len = strlen(text);
}

/* -- decoding ---------------------------------------------------------------*/

/* The word of a character; -1 to be passed over, -2 for one that cannot be. */
static int
word_of(char c)
{
    const char *at;

    if (c == ' ' || c == '\t' || c == '-' || c == '\r')
        return -1;
    at = c != '\0' ? strchr(alphabet, tolower((unsigned char)c)) : NULL;
    return at != NULL ? (int)(at - alphabet) : -2;
}

static int
wrong_line(unsigned line, const char *how, struct err *err)
{
    return err_set(err, ERR_KEY, "line %u of the paper key %s", line, how);
}

/* `p`: what is behind the number of the line. */
static int
take_line(const char repo[33], unsigned line, const char *p, size_t len,
          uint8_t master[KEY_MASTER_LEN], struct err *err)
{
    uint8_t words[WORDS] = {0};
    uint8_t *w = line_words(repo, line, words);
    unsigned n = 0;
    bool good;

    for (size_t i = 0; i < len; i++) {
        int word = word_of(p[i]);

        if (word == -2)
            return wrong_line(line, "has a character that cannot be there",
                              err);
        if (word >= 0 && n == DATA + SUM)
            return wrong_line(line, "is too long", err);
        if (word >= 0)
            w[n++] = (uint8_t)word;
    }
    if (n != DATA + SUM)
        return wrong_line(line, "is too short", err);
    good = polymod(words, (size_t)(w - words) + DATA + SUM) == CONSTANT &&
           from_words(w, DATA, master + (line - 1) * LINE_BYTES, LINE_BYTES);
    wipe(words, sizeof words);
    return good ? 0
                : wrong_line(line,
                             "does not fit its checksum: it has a typing "
                             "error, or the repository's id has, or it "
                             "is another repository's",
                             err);
}

/* The id at `p`, with blanks and hyphens as people put them. */
static bool
take_id(const char *p, const char *end, char repo[33])
{
    uint8_t id[REPO_ID_LEN];
    char hex[33] = "";
    size_t n = 0;

    for (; p < end && n < 32; p++)
        if (*p != ' ' && *p != '\t' && *p != '-')
            hex[n++] = *p;
    if (!hex_decode(hex, id, sizeof id))
        return false;
    hex_encode(id, sizeof id, repo);
    return true;
}

/* "repository <id>", wherever it is: a remark may have the word, too. */
static int
find_repo(const char *text, size_t len, char repo[33], struct err *err)
{
    static const char word[] = "repository";
    const char *end = text + len;

    for (const char *p = text; (size_t)(end - p) >= sizeof word; p++)
        if (strncasecmp(p, word, sizeof word - 1) == 0 &&
            take_id(p + sizeof word - 1, end, repo))
            return 0;
    return err_set(err, ERR_FORMAT,
                   "the paper key has no line 'repository' with an id");
}

int
paper_decode(const char *text, size_t len, char repo[33],
             uint8_t master[KEY_MASTER_LEN], struct err *err)
{
    const char *end = text + len;
    unsigned seen = 0;

    if (find_repo(text, len, repo, err) < 0)
        return -1;
    for (const char *p = text, *next; p < end; p = next) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));

        if (stop == NULL)
            stop = end;
        next = stop + 1;
        while (p < stop && (*p == ' ' || *p == '\t'))
            p++;
        if (stop - p < 2 || *p < '1' || *p > '0' + LINES ||
            (p[1] != ' ' && p[1] != '\t'))
            continue;
        if (take_line(repo, (unsigned)(*p - '0'), p + 1, (size_t)(stop - p - 1),
                      master, err) < 0)
            return -1;
        seen |= 1u << (*p - '0');
    }
    for (unsigned line = 1; line <= LINES; line++)
        if ((seen >> line & 1) == 0)
            return wrong_line(line, "is missing", err);
    return 0;
}
