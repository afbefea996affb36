/* floats DATA   other rounding and flushed denormals in the caller's thread change no bit, and stay as they were */

#include "common.h"
#include <immintrin.h>

static unsigned settings(void) {
    return _mm_getcsr() & ~0x3fu; /* without the flags of what has happened */
}

static void **all(const Data *data, unsigned control) {
    void **out = new_outputs(data, data->rows), **rest = new_outputs(data, data->rows);
    ps_stream *stream = NULL;
    unsigned before = _mm_getcsr();
    _mm_setcsr(control);
    CHECK(ps_stream_create(data->program, data->symbols, 0, &stream) == PS_OK);
    ticks(data, stream, 0, data->cut, out);
    int64_t size = ps_stream_snapshot(stream, NULL, 0);
    char *bytes = guarded((size_t)size);
    CHECK(ps_stream_snapshot(stream, bytes, (size_t)size) == size);
    ps_stream_destroy(stream);
    CHECK(ps_stream_restore(data->program, bytes, (size_t)size, &stream) == PS_OK);
    ticks(data, stream, data->cut, data->rows, rest);
    ps_stream_destroy(stream);
    CHECK(settings() == control);
    for (int32_t i = 0; i < data->outputs; i++)
        memcpy((char *)out[i] + (size_t)data->cut * data->row, rest[i], (size_t)(data->rows - data->cut) * data->row);
    CHECK(ps_batch_run(data->program, data->in, rest, data->rows, data->symbols, 0) == PS_OK);
    CHECK(settings() == control);
    _mm_setcsr(before);
    for (int32_t i = 0; i < data->outputs; i++) CHECK(memcmp(out[i], rest[i], (size_t)data->rows * data->row) == 0);
    return out;
}

int main(int count, char **words) {
    CHECK(count == 2);
    Data data = read_data(words[1]);
    void **plain = all(&data, settings());
    /* Denormals are zero, in and out; towards minus infinity. */
    void **other = all(&data, settings() | 0x8040 | 0x2000);
    for (int32_t i = 0; i < data.outputs; i++)
        CHECK(memcmp(plain[i], other[i], (size_t)data.rows * data.row) == 0);
    puts("same");
    return 0;
}
