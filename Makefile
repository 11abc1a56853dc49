# Short names for what Meson and tools/ do; see HACKING.md.
# `all` needs the packages of tools/install-packages and no root; `demo` and
# `check` install what is missing (as root).

BUILD = build

.PHONY: all demo check check-asan check-tsan check-valgrind quick bench fuzz \
	soak install clean

all: $(BUILD)/build.ninja
	@meson compile -C $(BUILD)

$(BUILD)/build.ninja:
	@meson setup $(BUILD)

demo:
	@tools/install-packages
	@$(MAKE) --no-print-directory all
	@tests/demo/run

# everything, on every compiler and checker; ends with the counts
check:
	@tools/install-packages
	@tools/check

check-asan check-tsan check-valgrind:
	@tools/check $(@:check-%=%)

# for a pre-commit hook: format and unit tests
quick:
	@tools/check format unit

bench: all
	@if [ -x tests/bench/run ]; then tests/bench/run; \
	else echo "no tests/bench/run in this tree"; fi

# libFuzzer on every target, FUZZ_SECONDS each (default 60)
fuzz:
	@tools/fuzz

# guest, QEMU, bitmaps and backups in every order, against a model (default: half
# an hour: SOAK_MINUTES); SOAK="--seed 7" repeats a run
soak: all
	@tests/func/run track --minutes $(or $(SOAK_MINUTES),30) $(SOAK)

install: all
	@meson install -C $(BUILD)

clean:
	@rm -rf $(BUILD) $(BUILD)-clang $(BUILD)-asan $(BUILD)-tsan \
		$(BUILD)-fuzz
