"""The pages: assess, edit, restore, compare, in a browser. They hold nothing; all work is jobs of the desk."""
