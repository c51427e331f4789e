// The test program: doctest's main. Each room has its file; addp_tests --help lists doctest's options.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
