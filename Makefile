# addp.cpp: `make demo` trains and samples on real data, `make test` runs every test; `make help` lists the rest.
CXX ?= g++
MODE ?= release
BUILD ?= build$(if $(filter-out release,$(MODE)),/$(MODE))
ARCH ?= native
JOBS ?= $(shell nproc)
MAKEFLAGS += --no-print-directory

# No -ffast-math: NaN checks must work. The other relaxations change neither NaN nor infinity.
FLAGS.release = -O3 -fno-math-errno -fno-trapping-math -ffp-contract=fast
FLAGS.asan = -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
FLAGS.tsan = -O1 -g -fsanitize=thread
CXXFLAGS += -std=c++20 -march=$(ARCH) -mprefer-vector-width=512 $(FLAGS.$(MODE)) -Wall -Wextra -MMD -MP -I.
CPPFLAGS += -isystem /usr/include/eigen3
LDLIBS += -lz -lpthread

LIBRARY_SOURCES := $(wildcard tensor/*.cc autograd/*.cc nn/*.cc addp/*.cc data/*.cc)
LESSON_SOURCES := $(wildcard examples/[0-9]*.cc)
PROGRAM_SOURCES := $(filter-out $(LESSON_SOURCES) examples/main.cc,$(wildcard examples/*.cc))
TEST_SOURCES := $(wildcard tests/*.cc)

object = $(patsubst %.cc,$(BUILD)/%.o,$(1))
LIBRARY := $(BUILD)/libaddp.a
PROGRAM := $(BUILD)/addp
TESTS := $(BUILD)/addp_tests
LESSONS := $(patsubst examples/%.cc,$(BUILD)/%,$(LESSON_SOURCES))

.PHONY: all setup demo test asan tsan format clean help
all: $(PROGRAM) $(TESTS) $(LESSONS)

$(BUILD)/%.o: %.cc
	@mkdir -p $(@D)
	@echo "  c++  $<"
	@$(CXX) $(CPPFLAGS) $(CXXFLAGS) -c $< -o $@

$(LIBRARY): $(call object,$(LIBRARY_SOURCES))
	@rm -f $@ && ar rcs $@ $^

$(PROGRAM): $(call object,examples/main.cc $(PROGRAM_SOURCES)) $(LIBRARY)
	@echo "  link $@"
	@$(CXX) $(CXXFLAGS) $^ $(LDLIBS) -o $@

$(TESTS): $(call object,$(TEST_SOURCES) $(PROGRAM_SOURCES)) $(LIBRARY)
	@echo "  link $@"
	@$(CXX) $(CXXFLAGS) $^ $(LDLIBS) -o $@

$(LESSONS): $(BUILD)/%: $(BUILD)/examples/%.o $(LIBRARY)
	@echo "  link $@"
	@$(CXX) $(CXXFLAGS) $^ $(LDLIBS) -o $@

format:
	clang-format -i $(wildcard tensor/*.[hc]* autograd/*.[hc]* nn/*.[hc]* addp/*.[hc]* data/*.[hc]* examples/*.[hc]* tests/*.[hc]*)

clean:
	rm -rf build

-include $(patsubst %.o,%.d,$(call object,$(LIBRARY_SOURCES) $(wildcard examples/*.cc) $(TEST_SOURCES)))
