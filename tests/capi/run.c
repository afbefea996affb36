/* run DATA OUT SNAPSHOT          row by row with a snapshot and a restore on the way, and the same in batches
   run DATA OUT SNAPSHOT resume   from SNAPSHOT on, row by row
   OUT gets per output its rows. */

#include "common.h"

static void save(const Data *data, void **out, int64_t rows, const char *path) {
    FILE *file = fopen(path, "wb");
    CHECK(file != NULL);
    for (int32_t i = 0; i < data->outputs; i++)
        CHECK(fwrite(out[i], 1, (size_t)rows * data->row, file) == (size_t)rows * data->row);
    CHECK(fclose(file) == 0);
}

static void same(const Data *data, void **a, int64_t from, void **b, int64_t rows) {
    for (int32_t i = 0; i < data->outputs; i++)
        CHECK(memcmp((char *)a[i] + (size_t)from * data->row, b[i], (size_t)rows * data->row) == 0);
}

int main(int count, char **words) {
    CHECK(count >= 4);
    Data data = read_data(words[1]);
    ps_stream *stream = NULL;
    if (count == 5) {
        size_t size;
        char *bytes = read_file(words[3], &size);
        CHECK(ps_stream_restore(data.program, bytes, size, &stream) == PS_OK);
        CHECK(ps_stream_symbols(stream) == data.symbols);
        void **out = new_outputs(&data, data.rows);
        int64_t from = ps_stream_ordinal(stream);
        ticks(&data, stream, from, data.rows, out);
        save(&data, out, data.rows - from, words[2]);
        ps_stream_destroy(stream);
        return 0;
    }

    /* Row by row, leaving a stream in the middle and going on with another. */
    void **whole = new_outputs(&data, data.rows);
    CHECK(ps_stream_create(data.program, data.symbols, 0, &stream) == PS_OK);
    ticks(&data, stream, 0, data.cut, whole);
    int64_t size = ps_stream_snapshot(stream, NULL, 0);
    CHECK(size > 0);
    char *bytes = guarded((size_t)size), *again = guarded((size_t)size);
    CHECK(ps_stream_snapshot(stream, bytes, (size_t)size) == size);
    write_file(words[3], bytes, (size_t)size);
    ps_stream_destroy(stream);
    CHECK(ps_stream_restore(data.program, bytes, (size_t)size, &stream) == PS_OK);
    CHECK(ps_stream_get(stream, data.inputs) == NULL);
    CHECK(ps_stream_snapshot(stream, again, (size_t)size) == size);
    CHECK(memcmp(bytes, again, (size_t)size) == 0);
    void **rest = new_outputs(&data, data.rows);
    ticks(&data, stream, data.cut, data.rows, rest);
    for (int32_t i = 0; i < data.outputs; i++)
        memcpy((char *)whole[i] + (size_t)data.cut * data.row, rest[i], (size_t)(data.rows - data.cut) * data.row);
    ps_stream_destroy(stream);

    /* All rows at once. */
    void **out = new_outputs(&data, data.rows);
    CHECK(ps_batch_run(data.program, data.in, out, data.rows, data.symbols, 0) == PS_OK);
    same(&data, whole, 0, out, data.rows);

    /* Some rows at once from a snapshot on, then one by one. */
    CHECK(ps_stream_restore(data.program, bytes, (size_t)size, &stream) == PS_OK);
    const void **later = malloc((size_t)data.inputs * sizeof *later);
    for (int32_t i = 0; i < data.inputs; i++) later[i] = (const char *)data.in[i] + (size_t)data.cut * data.row;
    int64_t some = (data.rows - data.cut) / 2;
    void **part = new_outputs(&data, some);
    CHECK(ps_stream_batch(stream, later, part, some) == PS_OK);
    same(&data, whole, data.cut, part, some);
    for (int32_t i = 0; i < data.outputs && some; i++)
        CHECK(memcmp(ps_stream_get(stream, data.inputs + i), (char *)part[i] + (size_t)(some - 1) * data.row, data.row) ==
              0);
    ticks(&data, stream, data.cut + some, data.rows, out);
    same(&data, whole, data.cut + some, out, data.rows - data.cut - some);
    ps_stream_destroy(stream);
    save(&data, whole, data.rows, words[2]);
    ps_program_close(data.program);
    free(later);
    return 0;
}
