# Owns: which processes belong to a command under mpirun. Open MPI's has the ranks as children, MPICH's has a proxy between.
# Must never know the command's name for anything but $CPA_HPC.

# processes PID: all that it has started, and that those have.
processes() {
    local child
    for child in $(pgrep -P "$1"); do
        echo "$child"
        processes "$child"
    done
}

# ranks PID: those of them, and itself, that are the program.
ranks() {
    local process
    for process in "$1" $(processes "$1"); do
        [ ! "/proc/$process/exe" -ef "$CPA_HPC" ] || echo "$process"
    done
}
