/* prefixed   two programs linked into one, each with its own prefix */

#include <stdio.h>

#include "fast.h"
#include "slow.h"

int main(void) {
    const fast_program *fast = NULL;
    const slow_program *slow = NULL;
    if (fast_program_open(FAST_ABI_VERSION, &fast) != FAST_OK) return 1;
    if (slow_program_open(SLOW_ABI_VERSION, &slow) != SLOW_OK) return 1;
    printf("%s %s\n", fast_program_output(fast, 0), slow_program_output(slow, 0));
    if (fast_program_input(fast, 5) != NULL) return 1;
    printf("%s|%s\n", fast_error_text(), slow_error_text());
    printf("%s\n", slow_status_text(SLOW_NOT_READY));
    return 0;
}
