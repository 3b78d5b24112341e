#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "whence/core/parameters.h"
#include "whence/data/dataset.h"
#include "whence/models/model.h"
#include "whence/models/naming.h"

namespace whence {

/// `found`, tensors read from `where`, in the order, dtype and device of `expected`, whose names and shapes it must
/// have. Throws DataError that names `where` and the tensor when one is missing, superfluous, of another shape, not
/// floating or not finite.
ParameterSet fit_checkpoint(const ParameterSet& expected, const ParameterSet& found, const std::string& where);

/// Whether a checkpoint is a folder that holds an adapter and no model: tuning/peft.h reads it.
bool is_adapter(const std::filesystem::path& checkpoint);

/// Whether a checkpoint is a program that holds its weights, by its name (.pt2).
bool is_exported(const std::filesystem::path& checkpoint);

/// The files of a checkpoint that are there: itself, or the weights in a Hugging Face directory, or those of an
/// adapter. Throws DataError where a directory holds weights in a format that is not read.
std::vector<std::filesystem::path> checkpoint_files(const std::filesystem::path& checkpoint);

/// What a checkpoint of the model says of its outputs: how many, and which class each is, where it was trained here or
/// has an id2label. Nothing of one without a head of its own, or whose head is not to be told from other layers.
HeadClasses checkpoint_classes(const std::filesystem::path& checkpoint, const Model& model);
/// What training writes of its data into a checkpoint's metadata: checkpoint_classes() is made of it.
std::map<std::string, std::string> data_metadata(const Dataset& data);
/// The metadata that training wrote into a checkpoint's safetensors file; empty where there is none.
std::map<std::string, std::string> checkpoint_metadata(const std::filesystem::path& checkpoint);
/// An entry of it.
std::string checkpoint_metadata(const std::filesystem::path& checkpoint, const std::string& key);
/// Of what an exported model called its outputs, which numbers as labels stand for, when a stage was trained on it.
inline constexpr const char* kNumberNames = "outputs";

/// Whether `whence train` wrote it, so that it may write it again.
bool is_whence_checkpoint(const std::filesystem::path& checkpoint);

/// Reads `expected`, parameters of the model, from a safetensors file, whose names may be another program's (naming.h),
/// or, of a model of texts, from a Hugging Face directory, which may hold more of it, or, of an exported one, from a
/// .pt2 file. Throws DataError where whence
/// wrote the file and its bytes are others now (sealed_safetensors.h); cost: SHA-256 of such a file.
NamedTensors read_checkpoint(const std::filesystem::path& checkpoint, const Model& model, const ParameterSet& expected,
                             const Renaming& rename, const std::string& where);

}  // namespace whence
