#pragma once
#include <string>
#include <vector>

#include "whence/report/html.h"

namespace whence::cli {

/// One of the results that a page joins.
struct JoinedResult {
  std::string name;  ///< Its folder.
  Page page;
  std::string pipeline = {};  ///< That it is of; empty: of none.
  bool of_no_query =
      false;  ///< It says nothing of single queries, only how far others of its pipeline can be believed.
};

/// Whether two queries are the same one: texts of the same words, or one of them put into the other by a template;
/// pictures and rows of tables that are equal.
bool same_query(const Content& a, const Content& b);

/// One page of the queries that all results have, in the order of the first. Throws InvalidArgument, naming the
/// results, where there is none, where one has several equal ones that no id tells apart, or where one is of no query
/// and none of the others is of its pipeline. Rows of tables are compared by all of their cells.
Page join(std::vector<JoinedResult> results);

}  // namespace whence::cli
