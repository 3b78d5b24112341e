#include "cli.h"

int main(int count, char** values) { return whence::cli::run(count, values); }
