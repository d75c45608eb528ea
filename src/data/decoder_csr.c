// Owns: chunks of a CSR matrix as pieces of rows: which are needed, and putting their genes or counts in place.
// Must never look at `data` and `indices` together: each chunk stands for itself, so any thread can take any.
#include "decoder_impl.h"

void cpa_decoder_find_runs(cpa_decoder *d, int part, int64_t i, int64_t end)
{
    const int64_t *indptr = d->plan.indptr, origin = indptr[cpa_part_of(d, part)->first];
    for (; i < end; i++) {
        int64_t cell = cpa_wanted(d, i), begin = indptr[cell] - origin, until = indptr[cell + 1] - origin;
        cpa_run *last = d->n_runs > 0 ? &d->run[d->n_runs - 1] : NULL;
        if (begin == until) {
            continue;
        }
        if (last != NULL && last->part == part && last->end == begin) { // neighbours are one run
            last->end = until;
        } else {
            d->run[d->n_runs++] = (cpa_run){begin, until, d->unpacks ? 0 : d->to.indptr[i], part};
        }
    }
}

void cpa_decoder_plan_csr(cpa_decoder *d, bool counts)
{
    int64_t next = 0; // chunks of the file below it are there
    for (int64_t r = 0; r < d->n_runs; r++) {
        const cpa_run *run = &d->run[r];
        const cpa_h5ad_raw_part *part = cpa_part_of(d, run->part);
        int64_t size = counts ? part->data->chunk[0] : part->indices->chunk[0];
        int64_t first = run->begin / size, last = (run->end - 1) / size;
        next = r > 0 && run[-1].part == run->part ? next : 0;
        for (int64_t k = first > next ? first : next; k <= last; k++) {
            int64_t begin = k * size > run->begin ? k * size : run->begin;
            d->piece[d->n_pieces++] =
                (cpa_piece){.begin = begin, .chunk = k, .first = r, .part = run->part, .counts = counts};
        }
        next = last + 1;
    }
}

// Stores genes; returns the largest of them.
static uint32_t put_16(uint16_t *restrict to, const uint32_t *restrict gene, int64_t n)
{
    uint32_t most = 0;
    for (int64_t i = 0; i < n; i++) {
        most = gene[i] > most ? gene[i] : most;
        to[i] = (uint16_t)gene[i];
    }
    return most;
}

static uint32_t put_32(uint32_t *restrict to, const uint32_t *restrict gene, int64_t n)
{
    uint32_t most = 0;
    for (int64_t i = 0; i < n; i++) {
        most = gene[i] > most ? gene[i] : most;
        to[i] = gene[i];
    }
    return most;
}

static uint32_t store_genes(const cpa_rows *to, const uint32_t *gene, int64_t at, int64_t n)
{
    return to->gene16 != NULL ? put_16(to->gene16 + at, gene, n) : put_32(to->gene32 + at, gene, n);
}

// Puts up to CPA_TILE genes in place; -1 or the first that is out of range.
static int64_t put_genes(const cpa_decoder *d, const cpa_h5ad_raw_part *part, const void *from, int64_t at, int64_t n)
{
    uint32_t room[CPA_TILE], limit = (uint32_t)part->n_stored;
    const uint32_t *gene = cpa_elements_as_index(part->indices, from, n, room);
    uint32_t most = store_genes(&d->to, gene, at, n);
    for (int64_t i = 0; most >= limit && i < n; i++) {
        if (gene[i] >= limit) {
            return i;
        }
    }
    if (part->place != NULL) { // only some genes are used: their places instead
        for (int64_t i = 0; i < n; i++) {
            room[i] = (uint32_t)part->place[gene[i]]; // -1 is CPA_NO_GENE
        }
        (void)store_genes(&d->to, room, at, n);
    }
    return -1;
}

static int64_t put_counts(cpa_decoder *d, const cpa_h5ad_raw_part *part, const void *from, int64_t at, int64_t n,
                          int thread)
{
    double value[CPA_TILE];
    bool all = part->place == NULL;
    if (all && cpa_elements_are_floats(part->data)) {
        return cpa_rows_put_counts(&d->to, at, n, NULL, from, &d->stats[thread]);
    }
    cpa_elements_as_double(part->data, from, n, value);
    for (int64_t i = 0; !all && i < n; i++) {
        value[i] = cpa_rows_is_dropped(&d->to, at + i) ? 0 : value[i];
    }
    return cpa_rows_put_counts(&d->to, at, n, value, NULL, &d->stats[thread]);
}

// A gene or count that cannot be right: element `at` of the file, stored at `from`.
static bool bad_element(cpa_decoder *d, int part, bool counts, const void *from, int64_t at)
{
    const cpa_chunks *c = counts ? cpa_part_of(d, part)->data : cpa_part_of(d, part)->indices;
    cpa_fault fault = {.part = part, .at = at};
    if (counts) {
        fault.kind = CPA_FAULT_COUNT;
        fault.gene = -1;
        cpa_elements_as_double(c, from, 1, &fault.value);
    } else {
        fault.kind = CPA_FAULT_GENE;
        fault.gene = cpa_element_as_integer(c, from);
    }
    return cpa_decoder_fail(d, &fault);
}

// Elements [begin, end) of the file, which lie at `from`, go to `to` and on.
static bool put(cpa_decoder *d, bool counts, const uint8_t *from, const cpa_run *run, int thread)
{
    const cpa_h5ad_raw_part *part = cpa_part_of(d, run->part);
    size_t bytes = counts ? part->data->element_bytes : part->indices->element_bytes;
    for (int64_t at = run->begin, n; at < run->end; at += n, from += (size_t)n * bytes) {
        n = run->end - at < CPA_TILE ? run->end - at : CPA_TILE;
        int64_t to = run->to + at - run->begin;
        int64_t bad = counts ? put_counts(d, part, from, to, n, thread) : put_genes(d, part, from, to, n);
        if (bad >= 0) {
            return bad_element(d, run->part, counts, from + (size_t)bad * bytes, at + bad);
        }
        if (counts && d->to.count16 != NULL && d->stats[thread].wide) {
            return false;
        }
    }
    return true;
}

// Looks at the rows that lie wholly in what was just put, before it leaves the cache. Of those at its ends, and those out of order, the last
// phase makes rows.
static void look_at_rows(cpa_decoder *d, bool counts, const cpa_run *run, int thread)
{
    const int64_t *indptr = d->to.indptr;
    int64_t end = run->to + run->end - run->begin, low = 0, high = d->n; // indptr[low - 1] < run->to <= indptr[high]
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (indptr[middle] < run->to) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    for (int64_t i = low; i < d->n && indptr[i + 1] <= end; i++) {
        if (indptr[i] == indptr[i + 1]) {
            continue; // in no run, or in two
        }
        if (!counts && cpa_rows_ascend(&d->to, i)) {
            d->state[i] = CPA_ROW_ASCENDS;
        } else if (counts && d->state[i] == CPA_ROW_ASCENDS) {
            cpa_rows_sum(&d->to, i, &d->stats[thread]);
            d->state[i] = CPA_ROW_DONE;
        }
    }
}

bool cpa_decoder_run_csr(cpa_decoder *d, const cpa_piece *piece, int thread)
{
    const cpa_chunks *c = piece->counts ? cpa_part_of(d, piece->part)->data : cpa_part_of(d, piece->part)->indices;
    int64_t begin = piece->chunk * c->chunk[0], end = begin + c->chunk[0], last = piece->first, until = piece->begin;
    while (last < d->n_runs && d->run[last].part == piece->part && d->run[last].begin < end) {
        until = d->run[last].end < end ? d->run[last].end : end;
        last++;
    }
    const void *elements;
    const char *reason = cpa_chunk_read(d->reader[thread], c, piece->chunk, piece->begin - begin, until - begin,
                                        &elements, &d->stats[thread].n_read);
    if (reason != NULL) {
        return cpa_decoder_fail(d, &(cpa_fault){.kind = CPA_FAULT_CHUNK,
                                                .part = piece->part,
                                                .at = piece->begin,
                                                .counts = piece->counts,
                                                .chunk = piece->chunk,
                                                .reason = reason,
                                                .error = cpa_chunk_error(d->reader[thread])});
    }
    for (int64_t r = piece->first; r < last && !d->unpacks; r++) {
        cpa_run run = d->run[r];
        run.to += run.begin < begin ? begin - run.begin : 0;
        run.begin = run.begin < begin ? begin : run.begin;
        run.end = run.end < end ? run.end : end;
        const uint8_t *from = (const uint8_t *)elements + (size_t)(run.begin - piece->begin) * c->element_bytes;
        if (!put(d, piece->counts, from, &run, thread)) {
            return false;
        }
        if (d->to.kept == NULL) {
            look_at_rows(d, piece->counts, &run, thread);
        }
    }
    return true;
}
