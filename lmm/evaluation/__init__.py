"""What is said about models: protocols, prediction folders, tables, and how far the evaluators are to be trusted."""
