/* memory DATA   who asks for memory and when; what happens when there is none
   Linked with the object file and --wrap, so that this file stands between the library and libc. */

#include "common.h"

static int64_t asked, held, allowed = INT64_MAX;

void *__real_malloc(size_t size);
void *__real_aligned_alloc(size_t edge, size_t size);
void __real_free(void *at);
void *__wrap_malloc(size_t size);
void *__wrap_aligned_alloc(size_t edge, size_t size);
void __wrap_free(void *at);

void *__wrap_malloc(size_t size) {
    if (asked++ >= allowed) return NULL;
    held++;
    return __real_malloc(size);
}

void *__wrap_aligned_alloc(size_t edge, size_t size) {
    CHECK(size % edge == 0);
    if (asked++ >= allowed) return NULL;
    held++;
    return __real_aligned_alloc(edge, size);
}

void __wrap_free(void *at) {
    held -= at != NULL;
    __real_free(at);
}

/* A call with 0, 1, 2 … requests granted, until it succeeds: refused calls keep nothing and say why. */
#define UNTIL_ENOUGH(call, kept)                                                                                      \
    do {                                                                                                              \
        int64_t before = held;                                                                                        \
        for (allowed = asked = 0;; allowed++, asked = 0) {                                                            \
            ps_status status = (call);                                                                                \
            if (status == PS_OK) break;                                                                               \
            CHECK(status == PS_NO_MEMORY && held == before && asked == allowed + 1);                                  \
            CHECK(strstr(ps_error_text(), ": no memory for ") != NULL);                                               \
        }                                                                                                             \
        CHECK(allowed > 0 && held == before + (kept));                                                                \
        printf("%d\n", (int)allowed);                                                                                 \
        allowed = INT64_MAX;                                                                                          \
    } while (0)

int main(int count, char **words) {
    CHECK(count == 2);
    Data data = read_data(words[1]);
    void **out = new_outputs(&data, data.rows), **again = new_outputs(&data, data.rows);
    ps_stream *stream = NULL;
    UNTIL_ENOUGH(ps_stream_create(data.program, data.symbols, 0, &stream), 2);

    /* Between creating and destroying nothing is asked for. */
    int64_t size = ps_stream_snapshot(stream, NULL, 0);
    char *bytes = guarded((size_t)size);
    asked = 0;
    ticks(&data, stream, 0, data.cut, out);
    CHECK(ps_stream_snapshot(stream, bytes, (size_t)size) == size);
    CHECK(ps_stream_handle(stream, "none") == PS_UNKNOWN_NAME);
    CHECK(asked == 0 && held == 2);
    ps_stream_destroy(stream);
    CHECK(held == 0);

    UNTIL_ENOUGH(ps_stream_restore(data.program, bytes, (size_t)size, &stream), 2);
    const void **later = (const void **)(void *)guarded((size_t)data.inputs * sizeof *later);
    for (int32_t i = 0; i < data.inputs; i++) later[i] = (const char *)data.in[i] + (size_t)data.cut * data.row;
    UNTIL_ENOUGH(ps_stream_batch(stream, later, out, data.rows - data.cut), 0);
    ps_stream_destroy(stream);
    CHECK(held == 0);

    /* A refused batch has left the stream as it was. */
    UNTIL_ENOUGH(ps_batch_run(data.program, data.in, again, data.rows, data.symbols, 0), 0);
    for (int32_t i = 0; i < data.outputs; i++)
        CHECK(memcmp((char *)again[i] + (size_t)data.cut * data.row, out[i], (size_t)(data.rows - data.cut) * data.row) ==
              0);
    return 0;
}
