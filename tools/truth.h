#pragma once
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "comparison.h"
#include "json.h"
#include "whence/core/registry.h"

namespace whence {
namespace cli {

/// What scores are compared with: a word of --against. Made of a comparison, it is a table with a row a method, which
/// evaluation.json keeps and columns() shows to people.
class Truth {
 public:
  using Columns = std::vector<std::pair<std::string, std::string>>;  ///< Name and cell.

  virtual ~Truth() = default;
  /// The flags that it looks at, of those that not every truth does.
  virtual std::vector<std::string> flags() const = 0;
  /// Whether what it needs is given. Throws UsageError.
  virtual void check_flags(const CommandLine&) const {}
  /// Throws InvalidArgument for a method that it has no row for.
  virtual void check_method(const ListedMethod&) const {}
  /// Whether it is made of trainings from where --train-from says.
  virtual bool trains() const { return true; }
  /// Where its trainings begin: start or checkpoint.
  virtual std::string train_from(const CommandLine& line) const { return line.text("train-from"); }
  /// Whether --scores of an earlier run are compared with it too.
  virtual bool judges_results() const { return false; }

  /// What it adds to evaluation.json: its settings, trainings, and `table`, a row {method, ..., seconds} for each
  /// method; nothing where --plan was told what that takes.
  virtual std::optional<Json> compare(Comparison& at) const = 0;
  /// What a row says in one number, of which more is better.
  struct Figure {
    std::string name;
    double value = 0;
    Interval interval{0, 0};  ///< 95 %.
    double good = 0;          ///< From here on a method can be relied on.
  };
  virtual Figure figure(const Json& row) const = 0;
  /// What there would have to be more of to tell methods apart: "--subsets".
  virtual std::string more() const = 0;
  /// Of a row of that table, between its method and its seconds.
  virtual Columns columns(const Json& row) const = 0;
  /// The cells of a last row, of what the truth itself reaches; none where that is not known.
  virtual std::vector<std::string> ceiling(const Json& /*result*/) const { return {}; }
  /// Whether that is known and not apart from chance.
  virtual bool ceiling_is_chance(const Json& /*result*/) const { return false; }
  /// What the numbers of the table are, in a line; empty where the columns' names say it.
  virtual std::string legend(const Json& /*result*/) const { return {}; }
};

/// The number and the interval in a row's keys.
Truth::Figure figure_in(const Json& row, const std::string& key, std::string name, double good);

/// "0.123", or - for null.
std::string number_cell(const Json& value, const char* format = "{:.3f}");
/// "0.123 [0.1, 0.2]".
std::string interval_cell(const Json& value, const Json& interval, const char* format = "{:.3f}");

}  // namespace cli

WHENCE_DECLARE_ROOM(cli::Truth)

}  // namespace whence
