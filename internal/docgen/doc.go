// Docgen writes the pages of docs that are generated, so that they cannot say anything else than the code does:
//
//   - errors.md, from the comments of stint.v1.Reason;
//   - defaults.md, from the constants of the packages that set defaults and bounds, and from the program's own help.
//
// The first comes from a buf image (a FileDescriptorSet with source info), because the stubs do not carry comments. The
// second needs code that compiles. `make gen` runs docgen in the module's root; `make check-gen` fails when a page is
// stale.
package main
