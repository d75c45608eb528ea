// Owns: the stored bytes of a dataset: where each chunk lies in the file, and reading it without HDF5, so by any thread.
// Must never be used after the file's path means another file; cpa_chunks_same tells.
#ifndef CPA_PLATFORM_CHUNKS_H
#define CPA_PLATFORM_CHUNKS_H

#include "cpa/platform/h5.h"
#include "cpa/platform/unpack.h"

// Type of the stored elements. Booleans are I8.
typedef enum cpa_element {
    CPA_ELEMENT_I8,
    CPA_ELEMENT_U8,
    CPA_ELEMENT_I16,
    CPA_ELEMENT_U16,
    CPA_ELEMENT_I32,
    CPA_ELEMENT_U32,
    CPA_ELEMENT_I64,
    CPA_ELEMENT_U64,
    CPA_ELEMENT_F16,
    CPA_ELEMENT_F32,
    CPA_ELEMENT_F64
} cpa_element;

// A dataset of one or two dimensions as a grid of chunks, in row-major order. Contiguous storage counts as chunks of a
// convenient size.
typedef struct cpa_chunks {
    cpa_element element;
    size_t element_bytes;
    bool swapped;                        // the bytes of an element are in the other order than in memory
    bool packed;                         // by some filter: a chunk is read as a whole
    int64_t shape[2], chunk[2], grid[2]; // rows, columns; a single dimension has one column
    int64_t n;                           // chunks
    size_t chunk_bytes, most_stored;     // of a chunk before packing; the most that one takes in the file
    struct cpa_chunk_store *store;       // owned
} cpa_chunks;

/** Finds the chunks of a dataset through HDF5. *out stays NULL, with the reason in *why (a static string), for storage
 *  that only HDF5 itself can read: other filters or types, compact storage, a fill value other than
 *  0. IO when the file cannot be opened once more, BAD_DATA when HDF5 does not find a chunk. Rank-local. */
cpa_status cpa_chunks_open(const cpa_h5_data *d, cpa_chunks **out, const char **why);

/** Frees it and sets *c to NULL; NULL-safe. */
void cpa_chunks_close(cpa_chunks **c);

/** Bytes of the table that says where the chunks are. */
size_t cpa_chunks_bytes(const cpa_chunks *c);

typedef struct cpa_chunk_reader cpa_chunk_reader; // the memory of one thread

// What a reader needs: bytes of the largest chunk as it is stored, and as it is unpacked.
typedef struct cpa_chunk_room {
    size_t stored, unpacked;
} cpa_chunk_room;

/** Makes the room enough for these chunks, too. */
void cpa_chunk_room_add(cpa_chunk_room *room, const cpa_chunks *c);

/** A reader for all chunks that were added to `room`. */
cpa_status cpa_chunk_reader_create(const cpa_chunk_room *room, cpa_chunk_reader **out);

/** Frees it and sets *r to NULL; NULL-safe. */
void cpa_chunk_reader_destroy(cpa_chunk_reader **r);

/** Bytes that a reader takes. */
size_t cpa_chunk_reader_bytes(const cpa_chunk_room *room);

/** The elements [first, last) of a chunk, as they are stored, at *out; borrowed until the reader's next use. Adds the
 *  bytes read from the file to *n_read. Returns NULL, or what is wrong (static). Any thread, a reader each. */
const char *cpa_chunk_read(cpa_chunk_reader *r, const cpa_chunks *c, int64_t chunk, int64_t first, int64_t last,
                           const void **out, int64_t *n_read);

/** The system's error number when the reader's last failure was the system's, else 0. */
int cpa_chunk_error(const cpa_chunk_reader *r);

/** Tells the system that a chunk will be read soon. */
void cpa_chunk_announce(const cpa_chunks *c, int64_t chunk);

/** IO when the file was replaced, cut or changed since cpa_chunks_open; says how. Asks the file system, not HDF5. */
cpa_status cpa_chunks_same(const cpa_chunks *c);

/** BAD_DATA: "FILE: PATH: the chunk that begins with element E cannot be read: REASON; ...", or what cpa_chunks_same
 *  says; IO with the system's reason when `error` is not 0. */
cpa_status cpa_chunks_unreadable(const cpa_chunks *c, int64_t chunk, const char *reason, int error);

#endif
