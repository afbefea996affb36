/* capi DATA   nanoseconds of each tick (every input pushed, one run, every output looked at), then of a snapshot and
   of a restore, and its bytes */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "penstock.h"

static int64_t now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (int64_t)at.tv_sec * 1000000000 + at.tv_nsec;
}

int main(int count, char **words) {
    const ps_program *program = NULL;
    ps_stream *stream = NULL;
    int64_t head[2]; /* symbols, rows */
    FILE *file = count == 2 ? fopen(words[1], "rb") : NULL;
    if (file == NULL || fread(head, sizeof head, 1, file) != 1) return 1;
    if (ps_program_open(PS_ABI_VERSION, &program) != PS_OK) return 1;
    if (ps_stream_create(program, head[0], 0, &stream) != PS_OK) return 1;
    int32_t inputs = ps_program_inputs(program), outputs = ps_program_outputs(program);
    size_t row = (size_t)head[0] * (size_t)ps_program_itemsize(program), block = row * (size_t)head[1];
    char *data = malloc(block * (size_t)inputs);
    if (data == NULL || fread(data, block, (size_t)inputs, file) != (size_t)inputs) return 1;
    volatile char seen = 0;
    for (int64_t t = 0; t < head[1]; t++) {
        int64_t from = now();
        for (int32_t i = 0; i < inputs; i++) ps_stream_push(stream, i, data + (size_t)i * block + (size_t)t * row);
        ps_stream_run(stream);
        for (int32_t i = 0; i < outputs; i++) seen = *(const char *)ps_stream_get(stream, inputs + i);
        printf("%lld\n", (long long)(now() - from));
    }
    (void)seen;
    int64_t size = ps_stream_snapshot(stream, NULL, 0), took[2] = {INT64_MAX, INT64_MAX};
    char *state = malloc((size_t)size);
    for (int turn = 0; turn < 5 && state != NULL; turn++) {
        ps_stream *other = NULL;
        int64_t from = now();
        if (ps_stream_snapshot(stream, state, (size_t)size) != size) return 1;
        int64_t between = now();
        if (ps_stream_restore(program, state, (size_t)size, &other) != PS_OK) return 1;
        int64_t end = now();
        ps_stream_destroy(other);
        if (between - from < took[0]) took[0] = between - from;
        if (end - between < took[1]) took[1] = end - between;
    }
    printf("%lld\n%lld\n%lld\n", (long long)took[0], (long long)took[1], (long long)size);
    return 0;
}
