# addp.cpp: `make demo` trains and samples on real data, `make test` runs every test; `make help` lists the rest.
CXX ?= g++
MODE ?= release
BUILD ?= build$(if $(filter-out release,$(MODE)),/$(MODE))
ARCH ?= native
JOBS ?= $(shell nproc)
# The kernels of cuda/*.cu are made by g++ for the emulator of cuda/emulator (emulated), or by nvcc for GPUs (cuda).
BACKEND ?= emulated
CUDA ?= /usr/local/cuda
NVCC ?= $(CUDA)/bin/nvcc
MAKEFLAGS += --no-print-directory

# No -ffast-math: NaN checks must work. The other relaxations change neither NaN nor infinity.
# Program and tests only call what is below them: less optimisation there changes no run's speed and shortens the build.
FLAGS.release = $(if $(filter examples/% tests/%,$<),-O1,-O3) -fno-math-errno -fno-trapping-math -ffp-contract=fast
FLAGS.asan = -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
FLAGS.tsan = -O1 -g -fsanitize=thread
# Kernels whose every load and store the emulator watches: the hooks of -fsanitize=thread, without its run-time library.
FLAGS.race = $(FLAGS.release)
KERNELFLAGS.race = -O1 -g -fsanitize=thread --param tsan-instrument-func-entry-exit=0
KERNELFLAGS = $(KERNELFLAGS.$(MODE))
CXXFLAGS += -std=c++20 -march=$(ARCH) -mprefer-vector-width=512 $(FLAGS.$(MODE)) -Wall -Wextra -MMD -MP -I.
LDLIBS += -lz -lpthread

LIBRARY_SOURCES := $(wildcard tensor/*.cc autograd/*.cc nn/*.cc addp/*.cc data/*.cc)
LIBRARY_SOURCES += $(wildcard cuda/*.cc cuda/*.cu) $(if $(filter emulated,$(BACKEND)),$(wildcard cuda/emulator/*.cc))
LESSON_SOURCES := $(wildcard examples/[0-9]*.cc)
PROGRAM_SOURCES := $(filter-out $(LESSON_SOURCES) examples/main.cc,$(wildcard examples/*.cc))
# The emulator's own tests plant bugs in kernels, which only the emulator survives.
TEST_SOURCES := $(if $(filter cuda,$(BACKEND)),$(filter-out tests/test_emulator% tests/emulator%,$(wildcard tests/*.cc)),$(wildcard tests/*.cc tests/*.cu))
BENCH_SOURCES := $(wildcard bench/*.cc)

# In race mode only kernels and emulator are compiled anew; the rest is the ordinary build's.
PLAIN := $(if $(filter race,$(MODE)),build,$(BUILD))
object = $(foreach file,$(basename $(1)),$(if $(filter cuda/% tests/emulator%,$(file)),$(BUILD),$(PLAIN))/objects/$(file).o)
LIBRARY := $(BUILD)/libaddp.a
PROGRAM := $(BUILD)/addp
TESTS := $(BUILD)/addp_tests
BENCH_PROGRAM := $(BUILD)/addp_bench
LESSONS := $(patsubst examples/%.cc,$(BUILD)/%,$(LESSON_SOURCES))

# What a Debian machine needs besides g++, make and git; each package's reason is in README.md.
PACKAGES := libstb-dev doctest-dev libcli11-dev nlohmann-json3-dev zlib1g-dev dataset-fashion-mnist

.PHONY: all setup summary program demo test bench scaling cuda gpu-check race test-deep asan tsan format clean help
all: $(PROGRAM) $(TESTS) $(LESSONS)
program: $(PROGRAM)

help:
	@echo "make demo    set up, build, train on Fashion-MNIST, sample, probe, write a report (about 12 minutes on two cores, the build included)"
	@echo "make test    set up, build, run every test"
	@echo "make bench   time every op and whole steps beside PyTorch, BENCH=\"--only step\" for some"
	@echo "make scaling how the cost of a step grows, as tables and as plots in docs/; AXES=\"width threads\" for some"
	@echo "make all     build the program, the tests and the lessons    make program   the program only"
	@echo "make cuda    the same for NVIDIA GPUs, in build/cuda (needs nvcc)   make gpu-check   tests and times on a GPU"
	@echo "make race    the tests of the CUDA kernels in the emulator's race mode   make test-deep   and under AddressSanitizer"
	@echo "make asan    the tests under AddressSanitizer and UBSan      make tsan      under ThreadSanitizer"
	@echo "make format  clang-format over the tree                      make clean     remove build/"
	@echo "Variables: ARCH=native (or x86-64-v3 for any AVX2 machine), JOBS=$(JOBS), CXX=$(CXX)"

# Installs missing packages when it may: as root directly, else through sudo; when neither works it says what to type.
setup:
	@missing=; for p in $(PACKAGES); do \
	  dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ]; then as=; elif sudo -n true 2>/dev/null || [ -t 0 ] && command -v sudo >/dev/null; then as=sudo; else as=none; fi; \
	  if [ "$$as" = none ] || ! command -v apt-get >/dev/null; then \
	    echo "Packages are missing. Please run:  sudo apt-get install$$missing"; exit 1; fi; \
	  echo "Installing:$$missing"; \
	  $$as apt-get update -qq && $$as env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing >/dev/null || \
	    { echo "apt-get failed. Please run:  sudo apt-get install$$missing"; exit 1; }; \
	fi

# What is about to be built, and what this machine lacks for more.
HAS_NVCC := $(shell command -v $(NVCC))
summary:
	@echo "mode     $(MODE), $$($(CXX) --version | head -1), -march=$(ARCH)"
ifeq ($(BACKEND),cuda)
	@echo "kernels  for NVIDIA GPUs (sm $(SMS)), by $$($(NVCC) --version | grep release | sed 's/.*release/nvcc/')"
else
	@echo "kernels  for the CPU; those of CUDA by g++ for the emulator$(if $(HAS_NVCC), (make cuda: for GPUs), (no nvcc at $(NVCC): make cuda cannot work))"
endif
	@echo "devices  cpu, $(BACKEND)"

define COMPILE
@mkdir -p $(@D)
@echo "  c++  $<"
@$(CXX) $(CPPFLAGS) $(CXXFLAGS) -c $< -o $@
endef
$(BUILD)/objects/%.o: %.cc
	$(COMPILE)
ifneq ($(PLAIN),$(BUILD))
$(PLAIN)/objects/%.o: %.cc
	$(COMPILE)
endif

ifeq ($(BACKEND),cuda)
# Warnings, register spills and local memory are errors. The last architecture's PTX serves GPUs that come later.
SMS := 75 80 86 89 90 100 120
NVCCFLAGS = -std=c++20 -O3 -ccbin $(lastword $(CXX)) -Xcompiler -Wall -I. -MMD -MP -x cu --threads 0 \
  $(foreach sm,$(SMS),-gencode arch=compute_$(sm),code=sm_$(sm)) -gencode arch=compute_$(lastword $(SMS)),code=compute_$(lastword $(SMS)) \
  -Werror all-warnings -Xptxas -v,-warn-spills,-warn-lmem-usage
$(BUILD)/objects/cuda/%.o $(BUILD)/objects/tests/%.o: CPPFLAGS += -isystem $(CUDA)/include
LDLIBS += -L$(CUDA)/lib64 -Wl,-rpath,$(CUDA)/lib64 -lcublas -lcudart
$(BUILD)/objects/%.o: %.cu
	@mkdir -p $(@D)
	@echo "  nvcc $<"
	@mkdir -p $(@:.o=.keep)
	@$(NVCC) $(NVCCFLAGS) --keep --keep-dir $(@:.o=.keep) -c $< -o $@ 2> $(@:.o=.ptxas) || \
	  { grep -v '^ptxas info\|bytes stack frame' $(@:.o=.ptxas); rm -f $@; exit 1; }
	@find $(@:.o=.keep) -type f ! -name '*.ptx' -delete
else
# device.h says what a CUDA source means to g++; cuda/emulator has the headers that NVIDIA's would be.
$(BUILD)/objects/cuda/%.o $(BUILD)/objects/tests/%.o $(PLAIN)/objects/tests/%.o: CPPFLAGS += -Icuda/emulator
$(BUILD)/objects/cuda/emulator/race.o: CPPFLAGS += $(if $(filter race,$(MODE)),-DADDP_EMULATOR_RACE)
$(BUILD)/objects/%.o: %.cu
	@mkdir -p $(@D)
	@echo "  c++  $<"
	@$(CXX) $(CPPFLAGS) $(CXXFLAGS) -Wno-unknown-pragmas $(KERNELFLAGS) -x c++ -c $< -o $@
endif

$(LIBRARY): $(call object,$(LIBRARY_SOURCES))
	@rm -f $@ && ar rcs $@ $^

$(PROGRAM): $(call object,examples/main.cc $(PROGRAM_SOURCES)) $(LIBRARY)
	@echo "  link $@"
	@$(CXX) $(CXXFLAGS) $^ $(LDLIBS) -o $@

$(TESTS): $(call object,$(TEST_SOURCES) $(PROGRAM_SOURCES)) $(LIBRARY)
	@echo "  link $@"
	@$(CXX) $(CXXFLAGS) $^ $(LDLIBS) -o $@

$(LESSONS): $(BUILD)/%: $(BUILD)/objects/examples/%.o $(LIBRARY)
	@echo "  link $@"
	@$(CXX) $(CXXFLAGS) $^ $(LDLIBS) -o $@

$(BENCH_PROGRAM): $(call object,$(BENCH_SOURCES) $(PROGRAM_SOURCES)) $(LIBRARY)
	@echo "  link $@"
	@$(CXX) $(CXXFLAGS) $^ $(LDLIBS) -o $@

# The whole method on Fashion-MNIST. Interrupted (Ctrl-C, kill, power), the same command goes on where it was.
DEMO ?= runs/demo
demo: setup
	@$(MAKE) -j$(JOBS) program
	$(PROGRAM) train vqgan --resume --run $(DEMO)/vqgan
	$(PROGRAM) reconstruct --run $(DEMO)/vqgan
	$(PROGRAM) train predictor --resume --run $(DEMO)/predictor --tokenizer $(DEMO)/vqgan
	$(PROGRAM) train addp --resume --run $(DEMO)/addp --tokenizer $(DEMO)/vqgan --predictor $(DEMO)/predictor
	$(PROGRAM) sample --run $(DEMO)/addp
	$(PROGRAM) probe --run $(DEMO)/addp --train 30000 --test 10000
	$(PROGRAM) report $(DEMO)
	@echo
	@echo "Look at  $(DEMO)/report.html                     everything on one page"
	@echo "         $(DEMO)/addp/samples/samples.png        64 new images"
	@echo "         $(DEMO)/addp/samples/samples_alternation.png   how they came about"
	@echo "         $(DEMO)/vqgan/samples/reconstructions_test.png test images through the tokenizer"

# The sub-make reads the list of sources anew after set-up, and builds on all cores.
test: setup summary
	@$(MAKE) -j$(JOBS) all
	@$(TESTS)

# Needs Python with PyTorch and numpy (pip install torch numpy), which nothing else does.
bench: setup
	@$(MAKE) -j$(JOBS) $(BENCH_PROGRAM)
	@python3 bench/compare.py --program $(BENCH_PROGRAM) $(BENCH)

scaling: setup
	@$(MAKE) -j$(JOBS) $(BENCH_PROGRAM)
	@$(BENCH_PROGRAM) scaling docs $(AXES)

# The whole tree for GPUs, in a folder of its own.
cuda: setup
	@[ -n "$(HAS_NVCC)" ] || { echo "make cuda: there is no nvcc at $(NVCC). Install NVIDIA's CUDA toolkit, or say where it is: make cuda CUDA=/path"; \
	  echo "Everything else builds and is tested without it: make test"; exit 1; }
	@$(MAKE) BACKEND=cuda BUILD=build/cuda summary
	@$(MAKE) -j$(JOBS) BACKEND=cuda BUILD=build/cuda all
	@cuda/check_registers.sh build/cuda/objects/cuda

gpu-check: cuda
	@cuda/gpu_check.sh build/cuda gpu-check.txt

asan tsan: setup
	@$(MAKE) -j$(JOBS) MODE=$@ all
	@ASAN_OPTIONS=detect_leaks=1 build/$@/addp_tests $(TEST_ARGS)

# The tests that reach the CUDA kernels, with every access watched for races and bounds; and the same under sanitizers.
DEVICE_TESTS = --source-file='*test_ops*,*test_cuda*,*test_emulator*' --test-case-exclude='*the program trains*,*golden*'
race: setup
	@$(MAKE) -j$(JOBS) MODE=race build/race/addp_tests
	@build/race/addp_tests $(DEVICE_TESTS) $(TEST_ARGS)

test-deep: race
	@$(MAKE) -j$(JOBS) MODE=asan build/asan/addp_tests
	@ASAN_OPTIONS=detect_leaks=1 build/asan/addp_tests $(DEVICE_TESTS) $(TEST_ARGS)

format:
	clang-format -i $(wildcard tensor/*.[hc]* cuda/*.[hc]* cuda/emulator/*.[hc]* autograd/*.[hc]* nn/*.[hc]* addp/*.[hc]* data/*.[hc]* examples/*.[hc]* tests/*.[hc]* bench/*.[hc]*)

clean:
	rm -rf build

-include $(patsubst %.o,%.d,$(call object,$(LIBRARY_SOURCES) $(wildcard examples/*.cc) $(TEST_SOURCES) $(BENCH_SOURCES)))
