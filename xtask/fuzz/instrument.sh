#!/bin/sh
# In place of rustc, for the crates of this workspace: adds the counters that LLVM's fuzzer follows. They link only with the fuzzer, which
# build scripts do not have.
case " $* " in
*" --crate-name build_script_"*) exec "$@" ;;
*" --crate-name "*) exec "$@" \
    -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Copt-level=1 -Cdebug-assertions=on ;;
*) exec "$@" ;;
esac
