/* Put before each native module that is built to be fuzzed: counts, by their place, the pieces of code that run. gcc
 * calls __sanitizer_cov_trace_pc() at each; libFuzzer wants counters, and guided.py shows it these. What must not live
 * here: anything that is part of tidegate. */
#include <stdint.h>

uint8_t tg_counters[4096];
uintptr_t tg_places[4096][2]; /* libFuzzer asks for as many; they are only named in reports */

__attribute__((visibility("hidden"), no_sanitize_coverage)) void __sanitizer_cov_trace_pc(void) {
    uintptr_t place = (uintptr_t)__builtin_return_address(0) - (uintptr_t)tg_counters;
    tg_counters[(place ^ place >> 12) & 4095]++;
}
