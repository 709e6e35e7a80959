/* SPDX-License-Identifier: Apache-2.0 */
#include "sched/route.h"

#include "base/assert.h"

/* Whether place a is better than place b. */
static bool is_better(const qn_route_place *places, uint32_t a, uint32_t b, uint32_t sticky)
{
    if (places[a].n_matched != places[b].n_matched) {
        return places[a].n_matched > places[b].n_matched;
    }
    if (places[a].load_rows != places[b].load_rows) {
        return places[a].load_rows < places[b].load_rows;
    }
    return a == sticky && b != sticky;
}

uint32_t qn_route_choose(const qn_route_place *places, uint32_t n, uint32_t sticky)
{
    QN_ASSERT(n > 0);
    uint64_t least_rows = UINT64_MAX;
    for (uint32_t i = 0; i < n; i++) {
        if (places[i].is_open && places[i].load_rows < least_rows) {
            least_rows = places[i].load_rows;
        }
    }
    uint32_t best = UINT32_MAX;
    for (uint32_t i = 0; i < n; i++) {
        if (places[i].is_open && places[i].load_rows - least_rows <= places[i].n_matched &&
            (best == UINT32_MAX || is_better(places, i, best, sticky))) {
            best = i;
        }
    }
    return best;
}
