// Owns: the list of the attributes of an object. Must never read their values (h5.c).
#include <hdf5.h>

#include "h5_impl.h"

static herr_t add_name(hid_t object, const char *name, const H5A_info_t *info, void *list)
{
    (void)object;
    (void)info;
    return cpa_strings_add(list, name) == CPA_OK ? 0 : 1; // 1: no more of them
}

cpa_status cpa_h5_attrs(const cpa_h5 *f, const char *object, cpa_strings *out)
{
    CPA_H5_GUARD(f->path);
    hsize_t at = 0;
    if (cpa_h5_kind_of(f, object) == CPA_H5_NOTHING) {
        return cpa_fail(CPA_BAD_DATA, "%s: there is no '%s'", f->path, object);
    }
    herr_t ended = H5Aiterate_by_name(f->id, object[0] != '\0' ? object : "/", H5_INDEX_NAME, H5_ITER_INC, &at,
                                      add_name, out, H5P_DEFAULT);
    if (ended < 0) {
        return cpa_fail(CPA_BAD_DATA, "%s: %s: the attributes cannot be listed: %s", f->path, object, cpa_h5_why());
    }
    return ended > 0 ? CPA_INTERNAL : cpa_h5_settle(CPA_OK); // with the message of the addition that failed
}
