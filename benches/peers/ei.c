/* Measures ei, OTP's codec in C: `ei TIMES FILE...` with the files of the four terms in their order
 * (small, list, map, large) prints, for each, "ei", the file, and the nanoseconds of one encoding and
 * one decoding.
 *
 * ei builds no tree. It decodes into numbers and buffers that are there already, and encodes from
 * them into a buffer that is there already, as programs do that use it.
 */
#include <ei.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { NUMBERS = 10000, PAIRS = 1000, LARGE = 1 << 20, TEXT = 64 };

static long numbers[NUMBERS];
static char keys[PAIRS][MAXATOMLEN_UTF8];
static char values[PAIRS][TEXT];
static long value_lengths[PAIRS];
static char large[LARGE];

static char *input;
static ei_x_buff out;

static void need(int outcome, const char *what) {
    if (outcome < 0) {
        fprintf(stderr, "ei: %s failed\n", what);
        exit(1);
    }
}

static int begin(int *arity, int *index) {
    int version;
    *index = 0;
    *arity = 0;
    return ei_decode_version(input, index, &version);
}

static int decode_small(void) {
    int index, arity, size, type;
    long number, length;
    char atom[MAXATOMLEN_UTF8], text[TEXT], last[TEXT];
    if (begin(&arity, &index) < 0 || ei_decode_tuple_header(input, &index, &arity) < 0 || arity != 4
        || ei_decode_atom_as(input, &index, atom, sizeof atom, ERLANG_UTF8, NULL, NULL) < 0
        || ei_decode_long(input, &index, &number) < 0
        || ei_get_type(input, &index, &type, &size) < 0 || size > TEXT
        || ei_decode_binary(input, &index, text, &length) < 0
        || ei_get_type(input, &index, &type, &size) < 0 || size >= TEXT)
        return -1;
    return ei_decode_string(input, &index, last);
}

static int encode_small(void) {
    return ei_x_encode_version(&out) < 0 || ei_x_encode_tuple_header(&out, 4) < 0
        || ei_x_encode_atom_as(&out, "ok", ERLANG_UTF8, ERLANG_UTF8) < 0
        || ei_x_encode_long(&out, 1234567) < 0 || ei_x_encode_binary(&out, "hello!", 6) < 0
        || ei_x_encode_string_len(&out, "\1\2", 2) < 0 ? -1 : 0;
}

static int decode_list(void) {
    int index, arity;
    if (begin(&arity, &index) < 0 || ei_decode_list_header(input, &index, &arity) < 0
        || arity != NUMBERS)
        return -1;
    for (int i = 0; i < NUMBERS; i++)
        if (ei_decode_long(input, &index, &numbers[i]) < 0) return -1;
    return ei_decode_list_header(input, &index, &arity);
}

static int encode_list(void) {
    if (ei_x_encode_version(&out) < 0 || ei_x_encode_list_header(&out, NUMBERS) < 0) return -1;
    for (int i = 0; i < NUMBERS; i++)
        if (ei_x_encode_long(&out, numbers[i]) < 0) return -1;
    return ei_x_encode_empty_list(&out);
}

static int decode_map(void) {
    int index, arity, size, type;
    if (begin(&arity, &index) < 0 || ei_decode_map_header(input, &index, &arity) < 0
        || arity != PAIRS)
        return -1;
    for (int i = 0; i < PAIRS; i++)
        if (ei_decode_atom_as(input, &index, keys[i], MAXATOMLEN_UTF8, ERLANG_UTF8, NULL, NULL) < 0
            || ei_get_type(input, &index, &type, &size) < 0 || size > TEXT
            || ei_decode_binary(input, &index, values[i], &value_lengths[i]) < 0)
            return -1;
    return 0;
}

static int encode_map(void) {
    if (ei_x_encode_version(&out) < 0 || ei_x_encode_map_header(&out, PAIRS) < 0) return -1;
    for (int i = 0; i < PAIRS; i++)
        if (ei_x_encode_atom_as(&out, keys[i], ERLANG_UTF8, ERLANG_UTF8) < 0
            || ei_x_encode_binary(&out, values[i], value_lengths[i]) < 0)
            return -1;
    return 0;
}

static int decode_large(void) {
    int index, arity, size, type;
    long length;
    if (begin(&arity, &index) < 0 || ei_get_type(input, &index, &type, &size) < 0 || size > LARGE)
        return -1;
    return ei_decode_binary(input, &index, large, &length);
}

static int encode_large(void) {
    return ei_x_encode_version(&out) < 0 ? -1 : ei_x_encode_binary(&out, large, LARGE);
}

static const struct {
    int (*decode)(void);
    int (*encode)(void);
} terms[] = {
    {decode_small, encode_small},
    {decode_list, encode_list},
    {decode_map, encode_map},
    {decode_large, encode_large},
};

static double timed(long times, int (*operation)(void)) {
    struct timespec begun, ended;
    for (long i = 0; i < times / 10; i++) {
        out.index = 0;
        need(operation(), "an operation");
    }
    clock_gettime(CLOCK_MONOTONIC, &begun);
    for (long i = 0; i < times; i++) {
        out.index = 0;
        need(operation(), "an operation");
    }
    clock_gettime(CLOCK_MONOTONIC, &ended);
    double seconds = (double)(ended.tv_sec - begun.tv_sec);
    return (seconds * 1e9 + (double)(ended.tv_nsec - begun.tv_nsec)) / (double)times;
}

static void load(const char *path) {
    FILE *file = fopen(path, "rb");
    need(file ? 0 : -1, "fopen");
    need(fseek(file, 0, SEEK_END), "fseek");
    long size = ftell(file);
    rewind(file);
    input = realloc(input, (size_t)size);
    need(input && fread(input, 1, (size_t)size, file) == (size_t)size ? 0 : -1, "fread");
    fclose(file);
}

int main(int count, char **words) {
    need(ei_init(), "ei_init");
    need(ei_x_new(&out), "ei_x_new");
    for (int i = 0; i < 4 && 2 * i + 2 < count; i++) {
        load(words[2 * i + 2]);
        long times = atol(words[2 * i + 1]);
        double decode = timed(times, terms[i].decode);
        double encode = timed(times, terms[i].encode);
        printf("ei\t%s\t%.1f\t%.1f\n", words[2 * i + 2], encode, decode);
    }
    return 0;
}
