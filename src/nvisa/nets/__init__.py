"""Networks: modules, and the rows as they see them. Nothing here knows how they are trained."""
