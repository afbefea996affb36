/* two LIBRARY OTHER MODE   two libraries in one process; MODE local or global says where their names go */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "penstock.h"

#define CHECK(condition)                                                                                              \
    do {                                                                                                              \
        if (!(condition)) {                                                                                           \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                           \
            exit(1);                                                                                                  \
        }                                                                                                             \
    } while (0)

static void *find(void *library, const char *name) {
    void *found = dlsym(library, name);
    CHECK(found != NULL);
    return found;
}

/* ISO C has no conversion from dlsym's pointer to a function's, POSIX has. */
#define FUNCTION(library, name) (*(__typeof__(&name) *)(void *[]){find(library, #name)})

int main(int count, char **words) {
    CHECK(count == 4);
    int mode = RTLD_NOW | (strcmp(words[3], "local") == 0 ? RTLD_LOCAL : RTLD_GLOBAL);
    void *library[2];
    const ps_program *program[2] = {NULL, NULL};
    ps_stream *stream[2] = {NULL, NULL};
    for (int i = 0; i < 2; i++) {
        library[i] = dlopen(words[1 + i], mode);
        if (library[i] == NULL) fprintf(stderr, "%s\n", dlerror());
        CHECK(library[i] != NULL);
        CHECK(FUNCTION(library[i], ps_program_open)(PS_ABI_VERSION, &program[i]) == PS_OK);
        CHECK(FUNCTION(library[i], ps_stream_create)(program[i], 2, 0, &stream[i]) == PS_OK);
    }
    for (int i = 0; i < 2; i++) {
        const char *dtype = FUNCTION(library[i], ps_program_dtype)(program[i]);
        const char *output = FUNCTION(library[i], ps_program_output)(program[i], 0);
        double wide[2] = {3, 5};
        float narrow[2] = {3, 5};
        int is_wide = strcmp(dtype, "float64") == 0;
        CHECK(FUNCTION(library[i], ps_stream_push)(stream[i], 0, is_wide ? (void *)wide : (void *)narrow) == PS_OK);
        CHECK(FUNCTION(library[i], ps_stream_run)(stream[i]) == PS_OK);
        const void *row = FUNCTION(library[i], ps_stream_get)(stream[i], 1);
        printf("%s %s %g\n", output, dtype, is_wide ? ((const double *)row)[1] : (double)((const float *)row)[1]);
    }
    /* What belongs to one is refused by the other. */
    CHECK(FUNCTION(library[1], ps_stream_run)(stream[0]) == PS_OTHER_PROGRAM);
    printf("%s\n", FUNCTION(library[1], ps_error_text)());
    CHECK(FUNCTION(library[0], ps_program_warmup)(program[1]) == PS_OTHER_PROGRAM);
    printf("%s\n", FUNCTION(library[0], ps_error_text)());
    for (int i = 0; i < 2; i++) {
        FUNCTION(library[i], ps_stream_destroy)(stream[i]);
        FUNCTION(library[i], ps_program_close)(program[i]);
        CHECK(dlclose(library[i]) == 0);
    }
    return 0;
}
