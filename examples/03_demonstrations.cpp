// Demonstrations in a prompt, from one forward pass of any causal model in Hugging Face layout: which of them help the
// answer, and which has an output that the others do not explain?
//   03_demonstrations MODEL
#include <ATen/ATen.h>
#include <whence/icl/prompt_reader.h>

#include <cstdio>

using namespace whence;

int main(int count, char** values) try {
  if (count != 2) {
    std::fprintf(stderr, "usage: 03_demonstrations MODEL\n");
    return 2;
  }
  const PromptTask task{.name = "animals",
                        .demonstrations = {{"The cat ran.", "cat"},
                                           {"The dog sat.", "dog"},
                                           {"The dog ate.", "dog"},
                                           {"The cat sang.", "cat"},
                                           {"The dog slept.", "cat"},
                                           {"The dog ran.", "dog"},
                                           {"The cat ate.", "cat"},
                                           {"The cat slept.", "dog"},
                                           {"The dog sang.", "dog"},
                                           {"The cat sat.", "cat"}},
                        .queries = {{"The dog ran home.", "dog"}}};
  const TextModel model = read_text_model(values[1]);
  PromptReader reader(model, task, {.layers = {model.language->blocks()}, .position = ReadingPosition::kMean});
  const PromptReading reading = reader.read();
  const IclScores scores = create<IclMethod>("ridge")->score(reading.task);

  std::printf("%s → %s (expected %s)\n", task.queries[0].input.c_str(), reading.predictions[0].c_str(),
              task.queries[0].output->c_str());
  std::printf("  helps    suspect\n");
  for (std::size_t i = 0; i < task.demonstrations.size(); ++i) {
    const auto row = static_cast<std::int64_t>(i);
    std::printf("%+7.3f   %8.3f   %s → %s\n", scores.test[0][row].item<double>(), scores.self[row].item<double>(),
                task.demonstrations[i].input.c_str(), task.demonstrations[i].output->c_str());
  }
} catch (const Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
