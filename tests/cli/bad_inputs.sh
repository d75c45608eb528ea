#!/bin/bash
# Owns: that files and matrices which cannot be trained on are refused: by `train`, alone and on 3 ranks, and by `check`.
# Never trains a model to the end.
set -u
. "$CPA_TESTS/support/refuse.sh"
sample=$CPA_TESTS/data/glioblastoma_panobinostat.h5ad
make_bad_files

# ---- Files that are not what they should be
bad 66 "no such file" nowhere.h5ad
bad 66 "no such file" good.h5ad/below.h5ad
bad 65 "directory" folder.h5ad
bad 65 "empty" empty.h5ad
bad 65 "not an HDF5 file" text.h5ad
printf hello >tiny.h5ad
bad 65 "not an HDF5 file" tiny.h5ad
head -c 515 /dev/zero >zeros.h5ad # HDF5 looks for its signature at 512 bytes, too
bad 65 "not an HDF5 file" zeros.h5ad
bad 65 "Git LFS pointer|git lfs pull" pointer.h5ad
bad 65 "10x Genomics" tenx.h5
bad 65 "loom" cells.loom
bad 65 "MuData" multi.h5mu
bad 65 "not an AnnData file|'obs'" no_obs.h5ad
bad 65 "version 0.9.0|older anndata" new_file.h5ad
bad 65 "obs is a dataframe of version 0.9.0|older anndata" new_frame.h5ad
bad 74 "open for write|h5clear" open.h5ad
exec 9<good.h5ad # held by another program
flock -x 9
bad 74 "unable to lock|another program" good.h5ad
exec 9<&-
size=$(stat -c %s "$sample")
head -c 20 "$sample" >cut_start.h5ad
bad 65 "copy or download it again" cut_start.h5ad
head -c 1024 "$sample" >cut_1k.h5ad
head -c $((size / 2)) "$sample" >cut_half.h5ad
head -c $((size - 100)) "$sample" >cut_end.h5ad
for cut in cut_1k cut_half cut_end; do
    bad 65 "truncated|eof = |copy or download it again" $cut.h5ad
done
# As long as it should be, but its middle never arrived.
cp "$sample" hole.h5ad
dd if=/dev/zero of=hole.h5ad bs=1000 seek=300 count=600 conv=notrunc status=none
bad 65 "X/indices|damaged" hole.h5ad

# ---- The matrix
bad 65 "there is no X|'spliced'" no_x.h5ad
bad 65 "no layer 'counts'|layers" good.h5ad --layer counts
bad 65 "X|coo_matrix|csr_matrix" unknown_encoding.h5ad
bad 65 "X/data|numbers" text_counts.h5ad
bad 65 "X is 49 x 12|48 cells" shape.h5ad
bad 65 "X/indptr|48 elements|49" indptr_short.h5ad
bad 65 "X/data has 576|X/indices has 575" parts_differ.h5ad
bad 65 "X/indptr|begins with 1" indptr_begins.h5ad
bad 65 "X/indptr|falls from 84 to 83|row 7" indptr_falls.h5ad
bad 65 "X/indptr|points to 577|576" indptr_ends.h5ad
bad 65 "X/indptr|2147483647|overflow" indptr_huge.h5ad
bad 65 "X/indices|row 7|gene index 12|0 to 11" index_high.h5ad
bad 65 "X/indices|row 7|gene index -1" index_negative.h5ad
bad 65 "row 7|gene 'gene5'|nan" nan.h5ad
bad 65 "row 7|gene 'gene5'|inf" infinite.h5ad
bad 65 "row 7|gene 'gene5'|-2|negative" negative.h5ad
bad 65 "row 47|gene 'gene11'|nan" late_nan.h5ad
bad 65 "row 7|gene 'gene5'|nan" dense_nan.h5ad
bad 65 "X/data|chunk that begins with element 288|inflate|damaged" corrupt.h5ad
bad 65 "X/data|chunk that begins with element 288|checksum|damaged" checksum.h5ad
bad 65 "X/data|blosc2" unknown_filter.h5ad
bad 65 "X/data|chunk that begins with element 144|damaged" hole_in_data.h5ad
bad 65 "X/indices|chunk that begins with element 144|damaged" hole_in_indices.h5ad
bad 65 "X/indptr|falls from 132 to 0|row 11" hole_in_indptr.h5ad
bad 65 "X/indptr|falls from 276 to 0|row 23" indptr_zeros.h5ad
bad 65 "X/indptr|-2147483648|overflow" indptr_negative.h5ad
bad 65 "X/indices|row 7|gene index" index_unsigned.h5ad
bad 65 "48 cells and 0 genes" no_genes.h5ad
bad 65 "X is a csr_matrix of version 0.9.0|older anndata" new_matrix.h5ad
bad 65 "X is a link" link_to_nothing.h5ad
bad 65 "X is a link" link_to_file.h5ad
bad 65 "X/data is virtual" virtual.h5ad
bad 65 "X/data is virtual" virtual_gone.h5ad
bad 65 "X/data is stored externally" external.h5ad
bad 65 "X/data is stored externally" external_gone.h5ad
bad 65 "obs/condition/codes is stored externally" external_codes.h5ad
refuse 65 "external.h5ad|X/data is stored externally" convert external.h5ad x.h5ad
refuse 65 "groups_in_groups.h5ad|contain each other" convert groups_in_groups.h5ad x.h5ad

# ---- Damage over which HDF5 itself falls, or never comes to an end (a bound that suits a test is too short for the start of three ranks)
for file in "$CPA_TESTS"/fuzz/fallen/crash*.h5ad; do
    cp "$file" fallen.h5ad
    bad 65 "HDF5 library fell over|damaged" fallen.h5ad
done
for file in "$CPA_TESTS"/fuzz/fallen/loop*.h5ad; do
    cp "$file" fallen.h5ad
    attempt 65 "fallen.h5ad|HDF5 library did not come to an end|damaged" "$CPA_HPC" train fallen.h5ad --out run --timeout 1
done
finish
