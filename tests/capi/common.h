/* What the test programs share. */

#ifndef COMMON_H
#define COMMON_H

#define _DEFAULT_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "penstock.h"

#define CHECK(condition)                                                                                              \
    do {                                                                                                              \
        if (!(condition)) {                                                                                           \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #condition, ps_error_text());                      \
            exit(1);                                                                                                  \
        }                                                                                                             \
    } while (0)

/* Memory that ends where a page begins that nobody may touch. It is given back when the process ends. */
static inline char *guarded(size_t size) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t whole = (size + page - 1) / page * page;
    char *at = mmap(NULL, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(at != (char *)MAP_FAILED);
    CHECK(mprotect(at + whole, page, PROT_NONE) == 0);
    return at + whole - size;
}

static inline char *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL);
    CHECK(fseek(file, 0, SEEK_END) == 0);
    *size = (size_t)ftell(file);
    rewind(file);
    char *data = guarded(*size);
    CHECK(fread(data, 1, *size, file) == *size);
    fclose(file);
    return data;
}

static inline void write_file(const char *path, const void *data, size_t size) {
    FILE *file = fopen(path, "wb");
    CHECK(file != NULL);
    CHECK(fwrite(data, 1, size, file) == size);
    CHECK(fclose(file) == 0);
}

/* A file of inputs: symbols, rows and the row to stop at (int64), then per input its rows. */
typedef struct {
    int64_t symbols, rows, cut;
    size_t row; /* bytes of a row */
    int32_t inputs, outputs;
    const ps_program *program;
    const void **in; /* per input all rows */
} Data;

static inline Data read_data(const char *path) {
    Data data;
    size_t size;
    char *bytes = read_file(path, &size);
    int64_t head[3];
    memcpy(head, bytes, sizeof head);
    data.symbols = head[0], data.rows = head[1], data.cut = head[2];
    CHECK(ps_program_open(PS_ABI_VERSION, &data.program) == PS_OK);
    data.row = (size_t)data.symbols * (size_t)ps_program_itemsize(data.program);
    data.inputs = ps_program_inputs(data.program), data.outputs = ps_program_outputs(data.program);
    size_t block = (size_t)data.rows * data.row;
    CHECK(size == sizeof head + (size_t)data.inputs * block);
    data.in = (const void **)(void *)guarded((size_t)data.inputs * sizeof *data.in);
    for (int32_t i = 0; i < data.inputs; i++) {
        char *rows = guarded(block);
        memcpy(rows, bytes + sizeof head + (size_t)i * block, block);
        data.in[i] = rows;
    }
    return data;
}

/* Room for rows of all outputs, one array each. */
static inline void **new_outputs(const Data *data, int64_t rows) {
    void **out = (void **)(void *)guarded((size_t)data->outputs * sizeof *out);
    for (int32_t i = 0; i < data->outputs; i++) out[i] = guarded((size_t)rows * data->row);
    return out;
}

/* Rows from..to of the data through a stream, one after the other; row `from` comes first in `out`. */
static inline void ticks(const Data *data, ps_stream *stream, int64_t from, int64_t to, void **out) {
    for (int64_t t = from; t < to; t++) {
        CHECK(ps_stream_ordinal(stream) == t);
        for (int32_t i = 0; i < data->inputs; i++)
            CHECK(ps_stream_push(stream, i, (const char *)data->in[i] + (size_t)t * data->row) == PS_OK);
        CHECK(ps_stream_run(stream) == PS_OK);
        for (int32_t i = 0; i < data->outputs; i++) {
            const void *row = ps_stream_get(stream, data->inputs + i);
            CHECK(row != NULL);
            memcpy((char *)out[i] + (size_t)(t - from) * data->row, row, data->row);
        }
    }
}

#endif
