// Owns: bands of chunks of a dense matrix as pieces of rows: the values other than 0, gene by gene.
// Never takes apart a band: the chunks of a row follow each other, so that its genes ascend.
#include "decoder_impl.h"

void cpa_decoder_plan_dense(cpa_decoder *d, int part, int64_t i, int64_t end)
{
    const cpa_h5ad_raw_part *p = cpa_part_of(d, part);
    const cpa_chunks *c = p->data;
    int64_t band = -1;
    for (; i < end; i++) {
        int64_t row = cpa_wanted(d, i) - p->first;
        if (row / c->chunk[0] != band) {
            band = row / c->chunk[0];
            d->piece[d->n_pieces++] =
                (cpa_piece){.begin = row, .chunk = band * c->grid[1], .first = i, .part = part, .counts = true};
        }
        d->cursor[i] = d->to.indptr != NULL ? d->to.indptr[i] : 0;
        d->sum[i] = 0;
        d->entries[i] = 0;
    }
}

// Whether a value is one of the matrix: not 0, of a gene that is used.
static inline bool is_used(const int32_t *place, int64_t gene, double value)
{
    return value != 0 && (place == NULL || place[gene] >= 0);
}

// The values [first gene, first gene + n) of the i-th wanted cell; -1 or the first that is no count.
static int64_t put_values(cpa_decoder *d, const int32_t *place, int64_t i, int64_t first, int64_t n,
                          const double *value, int thread)
{
    double kept[CPA_TILE];
    uint32_t of[CPA_TILE]; // genes
    int64_t n_kept = 0, at = d->cursor[i];
    for (int64_t k = 0; k < n; k++) {
        if (!is_used(place, first + k, value[k])) {
            continue;
        }
        uint32_t gene = (uint32_t)(place != NULL ? place[first + k] : first + k);
        if (d->count == NULL) {
            cpa_rows_put_gene(&d->to, at + n_kept, gene);
        } else if (!cpa_rows_is_noted(&d->to, gene)) {
            cpa_rows_note_gene(&d->to, gene);
        }
        of[n_kept] = gene;
        kept[n_kept++] = value[k];
    }
    cpa_row_stats *stats = &d->stats[thread];
    float nowhere[CPA_TILE];
    cpa_rows scratch = {.count32 = nowhere};
    int64_t bad = d->count == NULL ? cpa_rows_put_counts(&d->to, at, n_kept, kept, NULL, stats)
                                   : cpa_rows_put_counts(&scratch, 0, n_kept, kept, NULL, stats);
    if (bad < 0) {
        d->cursor[i] += n_kept;
        for (int64_t k = 0; d->count != NULL && k < n_kept; k++) { // as rows are added up
            d->sum[i] += (double)nowhere[k];
            d->entries[i] += cpa_entry_digest(of[k], nowhere[k]);
            stats->max_count = (double)nowhere[k] > stats->max_count ? (double)nowhere[k] : stats->max_count;
        }
        return -1;
    }
    for (int64_t k = 0; k < n; k++) { // which of all values was it
        bad -= is_used(place, first + k, value[k]);
        if (bad < 0) {
            return k;
        }
    }
    return -1;
}

// A stretch of the row of the i-th wanted cell, from gene `gene` on.
static bool put_row(cpa_decoder *d, int part, int64_t i, int64_t gene, int64_t n, const uint8_t *from, int thread)
{
    const cpa_h5ad_raw_part *p = cpa_part_of(d, part);
    const cpa_chunks *c = p->data;
    double value[CPA_TILE];
    for (int64_t at = 0, k; at < n; at += k) {
        k = n - at < CPA_TILE ? n - at : CPA_TILE;
        cpa_elements_as_double(c, from + (size_t)at * c->element_bytes, k, value);
        int64_t bad = put_values(d, p->place, i, gene + at, k, value, thread);
        if (bad >= 0) {
            return cpa_decoder_fail(d, &(cpa_fault){.kind = CPA_FAULT_COUNT,
                                                    .part = part,
                                                    .at = (cpa_wanted(d, i) - p->first) * c->shape[1] + gene + at + bad,
                                                    .value = value[bad]});
        }
        if (d->to.count16 != NULL && d->stats[thread].wide) {
            return false;
        }
    }
    return true;
}

bool cpa_decoder_run_dense(cpa_decoder *d, const cpa_piece *piece, int thread)
{
    bool good = true; // a fault further down may come earlier in the matrix
    const cpa_h5ad_raw_part *part = cpa_part_of(d, piece->part);
    const cpa_chunks *c = part->data;
    int64_t band = piece->chunk / c->grid[1], top = part->first + band * c->chunk[0], last = piece->first;
    int64_t below = part->n_cells < (band + 1) * c->chunk[0] ? part->first + part->n_cells : top + c->chunk[0];
    while (last < d->n && cpa_wanted(d, last) < below) {
        last++;
    }
    int64_t low = (cpa_wanted(d, piece->first) - top) * c->chunk[1],
            high = (cpa_wanted(d, last - 1) - top + 1) * c->chunk[1];
    for (int64_t k = 0; k < c->grid[1]; k++) {
        const void *elements;
        const char *reason =
            cpa_chunk_read(d->reader[thread], c, piece->chunk + k, low, high, &elements, &d->stats[thread].n_read);
        if (reason != NULL) {
            return cpa_decoder_fail(d, &(cpa_fault){.kind = CPA_FAULT_CHUNK,
                                                    .part = piece->part,
                                                    .at = piece->begin * c->shape[1] + k * c->chunk[1],
                                                    .counts = true,
                                                    .chunk = piece->chunk + k,
                                                    .reason = reason,
                                                    .error = cpa_chunk_error(d->reader[thread])});
        }
        int64_t gene = k * c->chunk[1], width = c->shape[1] - gene < c->chunk[1] ? c->shape[1] - gene : c->chunk[1];
        for (int64_t i = piece->first; i < last && !d->unpacks; i++) {
            int64_t inside = (cpa_wanted(d, i) - top) * c->chunk[1] - low;
            good &= put_row(d, piece->part, i, gene, width,
                            (const uint8_t *)elements + (size_t)inside * c->element_bytes, thread);
        }
    }
    for (int64_t i = piece->first; d->count != NULL && i < last; i++) {
        d->count[i] = d->cursor[i];
        cpa_row_stats_total(&d->stats[thread], cpa_wanted(d, i), d->sum[i]);
        cpa_row_stats_entries(&d->stats[thread], cpa_wanted(d, i), d->entries[i]);
    }
    return good;
}
