/* tests/lib/fuzz_main.c - run a fuzz target over the files of its corpus.
 *
 * With `clang -fsanitize=fuzzer` the target gets libFuzzer's own main instead;
 * see HACKING.md.  Besides each file as it is, every truncation and some bit
 * flips of it are tried, so that the corpus is a real test in each run. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int n_inputs;

/* An exact-size copy, so that a sanitizer sees each byte read too far. */
static void
one(const uint8_t *data, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);

    if (copy == NULL)
        abort();
    memcpy(copy, data, len);
    (void)LLVMFuzzerTestOneInput(copy, len);
    free(copy);
    n_inputs++;
}

static void
variants(uint8_t *data, size_t len)
{
    size_t step = len > 2048 ? len / 1024 : 1;

    one(data, len);
    for (size_t cut = 0; cut < len; cut += step)
        one(data, cut);
    for (size_t i = 0; i < len; i += step) {
        uint8_t old = data[i];

        data[i] = (uint8_t)(old ^ (1u << (i % 8)));
        one(data, len);
        data[i] = 0xff;
        one(data, len);
        data[i] = old;
    }
}

static void
file(const char *path)
{
    static uint8_t data[1 << 20];
    FILE *f = fopen(path, "rb");
    size_t len;

    if (f == NULL)
        return;
    len = fread(data, 1, sizeof data, f);
    (void)fclose(f);
    variants(data, len);
}

int
main(int argc, char **argv)
{
    printf("1..1\n");
    for (int i = 1; i < argc; i++) {
        DIR *d = opendir(argv[i]);
        struct dirent *e;

        while (d != NULL && (e = readdir(d)) != NULL) {
            char path[4096];

            if (e->d_name[0] == '.')
                continue;
            (void)snprintf(path, sizeof path, "%s/%s", argv[i], e->d_name);
            file(path);
        }
        if (d != NULL)
            (void)closedir(d);
    }
    printf("%s 1 - %d inputs\n", n_inputs > 0 ? "ok" : "not ok", n_inputs);
    return n_inputs == 0;
}
