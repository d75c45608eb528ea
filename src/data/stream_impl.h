// Owns: what the files of the stream share: windows, their memory and their names. Never included outside src/data/stream*.c.
#ifndef CPA_DATA_STREAM_IMPL_H
#define CPA_DATA_STREAM_IMPL_H

#include "cpa/data/stream.h"

typedef enum cpa_window_state { CPA_WINDOW_EMPTY, CPA_WINDOW_READING, CPA_WINDOW_READY } cpa_window_state;

// Which cells: a window of the training order of an epoch, or (epoch -1) of the list.
typedef struct cpa_window_key {
    int64_t epoch, number;
} cpa_window_key;

// Its rows are in the order of the file.
typedef struct cpa_window {
    cpa_window_key key;
    cpa_window_state state;
    cpa_cells cells; // n_cells rows; its arrays are these:
    int64_t *indptr; // [max_cells+1]
    cpa_rows rows;   // [max_values]
    int64_t *cell;   // [max_cells] in the file, ascending
    int32_t *visit;  // [max_cells] rows in the order in which they are visited, lane after lane
    int64_t *lane;   // [lanes of the rank] where each begins in `visit`
} cpa_window;

/** Bytes of a window for so many cells and values. */
size_t cpa_window_bytes(const cpa_matrix *m, int64_t max_cells, int64_t max_values);

/** Takes its memory, empty. The pages are touched only when they are filled. */
cpa_status cpa_window_init(cpa_window *w, const cpa_matrix *m, int64_t max_cells, int64_t max_values, int n_lanes);

/** Frees it. */
void cpa_window_fini(cpa_window *w);

/** Makes the n cells in w->cell its content: sets indptr and n_cells. */
void cpa_window_set(cpa_window *w, const cpa_matrix *m, int64_t n);

/** Makes a list of cells, visited in this order, its content, each cell once. `pair` [2n] is scratch. */
void cpa_window_set_list(cpa_window *w, const cpa_matrix *m, const int64_t *cell, int64_t n, int64_t *pair);

#endif
