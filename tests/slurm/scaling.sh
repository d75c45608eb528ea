# Owns: a scaling study as one job on two nodes, with the script as it is: every number of ranks is measured, on as many nodes as it takes.
# Must never look at how long anything took.
source "$CPA_TESTS/support/slurm.sh"
small=(--batch-size 16 --n-latent 8 --n-hidden-encoder 16 --n-hidden-decoder 16 --steps 3 --repeats 1)

sbatch --wait --ntasks-per-node=2 jobs/scaling.sbatch "$DATA" study "${small[@]}" >/dev/null || fail "the study: exit code $?"
points=$(awk -F, '$2 == "measured" { printf "%s:%s:%s ", $1, $3, $5 }' study/scaling.csv)
[ "$points" = "strong:1:1 strong:2:1 strong:4:2 weak:1:1 weak:2:1 weak:4:2 " ] || fail "law, ranks and nodes measured: $points"
[ -s study/scaling.svg ] || fail "no figure"
grep -q '^Model error: ' cpa-scaling-*.log || fail "the log has no page"

# A folder that is there ends the job with the program's code.
sbatch --wait --ntasks-per-node=2 jobs/scaling.sbatch "$DATA" study "${small[@]}" >/dev/null
[ $? -eq 78 ] || fail "a folder that exists: not exit code 78"
