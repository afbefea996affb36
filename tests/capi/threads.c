/* threads DATA   streams in several threads at once give what one batch gives, and errors stay in their thread */

#include "common.h"
#include <pthread.h>

#define THREADS 4

static Data data;
static void **whole;

static void *work(void *number) {
    int mine = *(int *)number;
    void **out = new_outputs(&data, data.rows);
    for (int turn = 0; turn < 3; turn++) {
        char name[16];
        ps_stream *stream = NULL;
        snprintf(name, sizeof name, "none%d", mine);
        CHECK(ps_stream_create(data.program, data.symbols, 0, &stream) == PS_OK);
        CHECK(ps_stream_handle(stream, name) == PS_UNKNOWN_NAME);
        ticks(&data, stream, 0, data.rows, out);
        CHECK(strstr(ps_error_text(), name) != NULL);
        ps_stream_destroy(stream);
        for (int32_t i = 0; i < data.outputs; i++)
            CHECK(memcmp(out[i], whole[i], (size_t)data.rows * data.row) == 0);
        CHECK(ps_batch_run(data.program, data.in, out, data.rows, data.symbols, 0) == PS_OK);
        for (int32_t i = 0; i < data.outputs; i++)
            CHECK(memcmp(out[i], whole[i], (size_t)data.rows * data.row) == 0);
    }
    return NULL;
}

int main(int count, char **words) {
    CHECK(count == 2);
    data = read_data(words[1]);
    whole = new_outputs(&data, data.rows);
    CHECK(ps_batch_run(data.program, data.in, whole, data.rows, data.symbols, 0) == PS_OK);
    pthread_t threads[THREADS];
    int numbers[THREADS];
    for (int i = 0; i < THREADS; i++) {
        numbers[i] = i;
        CHECK(pthread_create(&threads[i], NULL, work, &numbers[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(strcmp(ps_error_text(), "") == 0);
    return 0;
}
