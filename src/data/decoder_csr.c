// Owns: chunks of a CSR matrix as pieces of rows: which are needed, and putting their genes or counts in place.
// Must never look at `data` and `indices` together: each chunk stands for itself, so any thread can take any.
#include "decoder_impl.h"

// The runs of elements of the wanted cells; neighbours are one run.
static void find_runs(cpa_decoder *d)
{
    const int64_t *indptr = d->plan.indptr;
    d->n_runs = 0;
    for (int64_t i = 0; i < d->n; i++) {
        int64_t cell = cpa_wanted(d, i), begin = indptr[cell], end = indptr[cell + 1];
        cpa_run *last = d->n_runs > 0 ? &d->run[d->n_runs - 1] : NULL;
        if (begin == end) {
            continue;
        }
        if (last != NULL && last->end == begin) {
            last->end = end;
        } else {
            d->run[d->n_runs++] = (cpa_run){begin, end, d->unpacks ? 0 : d->to.indptr[i]};
        }
    }
}

// Adds the chunks of one array that the runs lie in.
static void add_pieces(cpa_decoder *d, const cpa_chunks *c, bool counts)
{
    int64_t next = 0, size = c->chunk[0]; // chunks below `next` are there
    for (int64_t r = 0; r < d->n_runs; r++) {
        int64_t first = d->run[r].begin / size, last = (d->run[r].end - 1) / size;
        for (int64_t k = first > next ? first : next; k <= last; k++) {
            int64_t begin = k * size > d->run[r].begin ? k * size : d->run[r].begin;
            d->piece[d->n_pieces++] = (cpa_piece){.begin = begin, .chunk = k, .first = r, .counts = counts};
        }
        next = last + 1;
    }
}

void cpa_decoder_plan_csr(cpa_decoder *d)
{
    d->n_pieces = 0;
    find_runs(d);
    add_pieces(d, d->plan.raw->indices, false);
    d->n_first = d->n_pieces;
    add_pieces(d, d->plan.raw->data, true);
}

// Puts up to CPA_TILE genes in place; -1 or the first that is out of range.
static int64_t put_genes(const cpa_decoder *d, const void *from, int64_t at, int64_t n)
{
    uint32_t gene[CPA_TILE], limit = (uint32_t)d->plan.raw->n_stored, most = 0;
    const int32_t *place = d->plan.raw->place;
    cpa_elements_as_index(d->plan.raw->indices, from, n, gene);
    for (int64_t i = 0; i < n; i++) {
        most = gene[i] > most ? gene[i] : most;
    }
    for (int64_t i = 0; most >= limit && i < n; i++) {
        if (gene[i] >= limit) {
            return i;
        }
    }
    for (int64_t i = 0; place != NULL && i < n; i++) {
        gene[i] = (uint32_t)place[gene[i]]; // -1 is CPA_NO_GENE
    }
    if (d->to.gene16 != NULL) {
        for (int64_t i = 0; i < n; i++) {
            d->to.gene16[at + i] = (uint16_t)gene[i];
        }
    } else {
        for (int64_t i = 0; i < n; i++) {
            d->to.gene32[at + i] = gene[i];
        }
    }
    return -1;
}

static int64_t put_counts(cpa_decoder *d, const void *from, int64_t at, int64_t n, int thread)
{
    double value[CPA_TILE];
    bool all = d->plan.raw->place == NULL;
    if (all && cpa_elements_are_floats(d->plan.raw->data)) {
        return cpa_rows_put_counts(&d->to, at, n, NULL, from, &d->stats[thread]);
    }
    cpa_elements_as_double(d->plan.raw->data, from, n, value);
    for (int64_t i = 0; !all && i < n; i++) {
        value[i] = cpa_rows_is_dropped(&d->to, at + i) ? 0 : value[i];
    }
    return cpa_rows_put_counts(&d->to, at, n, value, NULL, &d->stats[thread]);
}

// A gene or count that cannot be right: element `at` of the file, stored at `from`.
static bool bad_element(cpa_decoder *d, const cpa_chunks *c, bool counts, const void *from, int64_t at)
{
    cpa_fault fault = {.at = at};
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
static bool put(cpa_decoder *d, const cpa_chunks *c, bool counts, const uint8_t *from, const cpa_run *part, int thread)
{
    for (int64_t at = part->begin, n; at < part->end; at += n, from += (size_t)n * c->element_bytes) {
        n = part->end - at < CPA_TILE ? part->end - at : CPA_TILE;
        int64_t to = part->to + at - part->begin;
        int64_t bad = counts ? put_counts(d, from, to, n, thread) : put_genes(d, from, to, n);
        if (bad >= 0) {
            return bad_element(d, c, counts, from + (size_t)bad * c->element_bytes, at + bad);
        }
        if (counts && d->to.count16 != NULL && d->stats[thread].wide) {
            return false;
        }
    }
    return true;
}

bool cpa_decoder_run_csr(cpa_decoder *d, const cpa_piece *piece, int thread)
{
    const cpa_chunks *c = piece->counts ? d->plan.raw->data : d->plan.raw->indices;
    int64_t begin = piece->chunk * c->chunk[0], end = begin + c->chunk[0], last = piece->first, until = piece->begin;
    while (last < d->n_runs && d->run[last].begin < end) {
        until = d->run[last].end < end ? d->run[last].end : end;
        last++;
    }
    const void *elements;
    const char *reason = cpa_chunk_read(d->reader[thread], c, piece->chunk, piece->begin - begin, until - begin,
                                        &elements, &d->stats[thread].n_read);
    if (reason != NULL) {
        return cpa_decoder_fail(d, &(cpa_fault){.kind = CPA_FAULT_CHUNK,
                                                .at = piece->begin,
                                                .counts = piece->counts,
                                                .chunk = piece->chunk,
                                                .reason = reason,
                                                .error = cpa_chunk_error(d->reader[thread])});
    }
    for (int64_t r = piece->first; r < last && !d->unpacks; r++) {
        cpa_run part = d->run[r];
        part.to += part.begin < begin ? begin - part.begin : 0;
        part.begin = part.begin < begin ? begin : part.begin;
        part.end = part.end < end ? part.end : end;
        const uint8_t *from = (const uint8_t *)elements + (size_t)(part.begin - piece->begin) * c->element_bytes;
        if (!put(d, c, piece->counts, from, &part, thread)) {
            return false;
        }
    }
    return true;
}
